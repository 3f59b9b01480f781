"""Ring 4: the ports over DynamoDB, S3, EventBridge and Secrets Manager. The only place that says boto3."""
