"""The storage stack: tables, buckets and the secret. All of them are retained when the stack is deleted."""

from aws_cdk import Acknowledgment, CfnOutput, Duration, RemovalPolicy, SecretValue, Stack, Validations
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_secretsmanager as secretsmanager
from constructs import Construct

from countermark.aws.names import BANK_INDEX, FEED_INDEX, PARTITION_KEY, SORT_KEY, TTL_ATTRIBUTE
from infra.deployment import Deployment


class StorageStack(Stack):
    """The resources of a deployment that must not be lost."""

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        deployment: Deployment,
    ) -> None:
        """Create the tables, the buckets and the secret of a deployment."""
        super().__init__(scope, id, description="countermark: tables, buckets and the exchanges' credentials.")
        self.banks = _table(self, "Banks", deployment=deployment, has_ttl=True)
        self.banks.add_global_secondary_index(
            index_name=FEED_INDEX.name,
            partition_key=_text(FEED_INDEX.partition_key),
            sort_key=_text(FEED_INDEX.sort_key),
            projection_type=dynamodb.ProjectionType.KEYS_ONLY,
        )
        self.banks.add_global_secondary_index(
            index_name=BANK_INDEX.name,
            partition_key=_text(BANK_INDEX.partition_key),
            sort_key=dynamodb.Attribute(name=BANK_INDEX.sort_key, type=dynamodb.AttributeType.NUMBER),
            projection_type=dynamodb.ProjectionType.KEYS_ONLY,
        )
        self.exchanges = _table(self, "Exchanges", deployment=deployment, has_ttl=False)
        self.access = _table(self, "Access", deployment=deployment, has_ttl=True)
        logs = _log_bucket(self, deployment=deployment)
        self.index = _bucket(
            self,
            "Index",
            logs=logs,
            # Replaced segments are retained for some days, because a reader may still use an older manifest.
            lifecycle=s3.LifecycleRule(
                noncurrent_version_expiration=Duration.days(deployment.superseded_days),
                expired_object_delete_marker=True,
                abort_incomplete_multipart_upload_after=Duration.days(1),
            ),
        )
        self.uploads = _bucket(
            self,
            "Uploads",
            logs=logs,
            lifecycle=s3.LifecycleRule(
                expiration=Duration.days(deployment.upload_days),
                noncurrent_version_expiration=Duration.days(1),
                abort_incomplete_multipart_upload_after=Duration.days(1),
            ),
        )
        _notify_of_new_objects(self.uploads)
        if deployment.cors_origins:
            self.uploads.add_cors_rule(
                allowed_methods=[s3.HttpMethods.POST], allowed_origins=list(deployment.cors_origins), max_age=3600
            )
        self.credentials = _credentials(self)
        CfnOutput(self, "UploadBucketName", value=self.uploads.bucket_name, description="Put content here to match it.")
        CfnOutput(
            self,
            "AccessTableName",
            value=self.access.table_name,
            description="Create the first API key: countermark key --table VALUE create ops --role admin",
        )
        CfnOutput(self, "CredentialsArn", value=self.credentials.secret_arn, description="Exchanges' credentials.")


def _text(name: str) -> dynamodb.Attribute:
    return dynamodb.Attribute(name=name, type=dynamodb.AttributeType.STRING)


def _table(scope: Construct, name: str, *, deployment: Deployment, has_ttl: bool) -> dynamodb.Table:
    """Create a table that is billed per request. DynamoDB encrypts it with a key that AWS owns."""
    return dynamodb.Table(
        scope,
        name,
        partition_key=_text(PARTITION_KEY),
        sort_key=_text(SORT_KEY),
        billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
        point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
            point_in_time_recovery_enabled=True
        ),
        time_to_live_attribute=TTL_ATTRIBUTE if has_ttl else None,
        deletion_protection=deployment.deletion_protection,
        removal_policy=RemovalPolicy.RETAIN,
    )


def _bucket(scope: Construct, name: str, *, logs: s3.IBucket, lifecycle: s3.LifecycleRule) -> s3.Bucket:
    """Create a private, encrypted and versioned bucket. It accepts TLS only, and its accesses are logged."""
    return s3.Bucket(
        scope,
        name,
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        encryption=s3.BucketEncryption.S3_MANAGED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        versioned=True,
        lifecycle_rules=[lifecycle],
        server_access_logs_bucket=logs,
        server_access_logs_prefix=f"{name.lower()}/",
        removal_policy=RemovalPolicy.RETAIN,
    )


def _log_bucket(scope: Construct, *, deployment: Deployment) -> s3.Bucket:
    """Create the bucket for the access logs of other buckets. It has no versions: S3 writes each log once."""
    return s3.Bucket(
        scope,
        "AccessLogs",
        block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
        encryption=s3.BucketEncryption.S3_MANAGED,
        enforce_ssl=True,
        minimum_tls_version=1.2,
        object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        lifecycle_rules=[s3.LifecycleRule(expiration=Duration.days(deployment.access_log_days))],
        removal_policy=RemovalPolicy.RETAIN,
    )


def _notify_of_new_objects(bucket: s3.Bucket) -> None:
    """Make S3 send an event to EventBridge for every new object.

    The CDK's `Bucket` has a property for this, but that property would add a function to the stack.
    """
    resource = bucket.node.default_child
    if not isinstance(resource, s3.CfnBucket):
        raise TypeError("the default child of a bucket must be a CfnBucket")
    resource.notification_configuration = s3.CfnBucket.NotificationConfigurationProperty(
        event_bridge_configuration=s3.CfnBucket.EventBridgeConfigurationProperty(event_bridge_enabled=True)
    )


def _credentials(scope: Construct) -> secretsmanager.Secret:
    """Create the secret for the exchanges' credentials: an empty JSON object, which operators fill."""
    secret = secretsmanager.Secret(
        scope,
        "Credentials",
        description="Credentials of exchanges: a JSON object whose keys are kinds of exchanges.",
        # The template contains only this empty value, which is not secret.
        # A later deployment does not change the value that operators set.
        secret_string_value=SecretValue.unsafe_plain_text("{}"),
        removal_policy=RemovalPolicy.RETAIN,
    )
    Validations.of(secret).acknowledge(
        Acknowledgment(
            id="AwsSolutions-SMG4",
            reason="Each exchange issues these credentials in a different way, so this stack cannot rotate them.",
        )
    )
    return secret
