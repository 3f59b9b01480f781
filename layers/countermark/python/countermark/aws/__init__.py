"""Ring 4: the ports over DynamoDB, S3, EventBridge and Secrets Manager. Only this package imports boto3."""
