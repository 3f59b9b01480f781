"""Grants: the exact actions that a function is allowed to perform.

Actions and resources contain no wildcards. Each exception has its reason next to it.
"""

from collections.abc import Sequence

from aws_cdk import Acknowledgment, Stack, Validations
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_iam as iam
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_s3 as s3

READ_ITEMS = ("dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query")
"""Actions to read by key. No function may scan a table: that reads ten million items, and only operators do it."""

WRITE_ITEMS = (
    "dynamodb:BatchWriteItem",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
)
"""Actions to write by key: single items, batches and transactions."""


def allow(function: lambda_.Function, *actions: str, on: Sequence[str]) -> iam.Grant:
    """Allow a function exactly these actions on exactly these resources."""
    return iam.Grant.add_to_principal(grantee=function, actions=list(actions), resource_arns=list(on))


def allow_items(
    function: lambda_.Function,
    *actions: str,
    table: dynamodb.ITable,
    indexes: Sequence[str] = (),
    partitions: Sequence[str] = (),
) -> None:
    """Allow a function exactly these actions on a table, and queries of these indexes of the table.

    `partitions` limits the actions to items with these partition keys. A key that ends in `*` is a prefix. An empty
    sequence means all items.
    """
    statement = iam.PolicyStatement(actions=sorted(actions), resources=[table.table_arn])
    if partitions:
        statement.add_condition("ForAllValues:StringLike", {"dynamodb:LeadingKeys": list(partitions)})
    function.add_to_role_policy(statement)
    if indexes:
        allow(function, "dynamodb:Query", on=[f"{table.table_arn}/index/{index}" for index in indexes])


def allow_objects(function: lambda_.Function, *actions: str, bucket: s3.IBucket) -> None:
    """Allow a function exactly these actions on the objects of a bucket.

    A function that reads objects may also list the bucket. Without `ListBucket`, S3 answers 403 instead of 404
    for an object that does not exist.
    """
    allow(function, *sorted(actions), on=[bucket.arn_for_objects("*")])
    if "s3:GetObject" in actions:
        allow(function, "s3:ListBucket", on=[bucket.bucket_arn])
    if function.role is not None:
        Validations.of(function.role).acknowledge(
            Acknowledgment(
                id=f"AwsSolutions-IAM5[Resource::{_arn_in_findings(bucket, Stack.of(function))}/*]",
                reason="Object names depend on the content or on the uploader, so all objects of this bucket are "
                "allowed, and no others.",
            )
        )


def _arn_in_findings(bucket: s3.IBucket, stack: Stack) -> str:
    """Return a bucket's ARN as findings of cdk-nag show it.

    For a bucket of a stack of this app, that is the name of the export; for another bucket, an ARN with its name.
    """
    if isinstance(bucket, s3.Bucket):
        exported: str = stack.resolve(Stack.of(bucket).export_value(bucket.bucket_arn))["Fn::ImportValue"]
        return exported
    return f"arn:<AWS::Partition>:s3:::{bucket.bucket_name}"
