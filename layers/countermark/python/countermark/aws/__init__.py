"""Ring 4: the ports, implemented with DynamoDB, S3, EventBridge, SQS, Lambda and Secrets Manager.

Only this package imports boto3.
"""
