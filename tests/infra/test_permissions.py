"""Who may do what on which resource: every policy of every role, exactly. A grant more or less fails here."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.conftest import CONTENT_BUCKET
from tests.infra.template import as_list, named, reference

READ = {"dynamodb:BatchGetItem", "dynamodb:GetItem", "dynamodb:Query"}
WRITE = {
    "dynamodb:BatchWriteItem",
    "dynamodb:ConditionCheckItem",
    "dynamodb:DeleteItem",
    "dynamodb:PutItem",
    "dynamodb:UpdateItem",
}
REMEMBER = {"dynamodb:GetItem", "dynamodb:PutItem"}
RECEIVE = {"sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"}
TRACE = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
LOG = {"logs:CreateLogStream", "logs:PutLogEvents"}

MAY: Mapping[str, Mapping[str, set[str]]] = {
    "FetchRole": {
        "Banks": READ | WRITE,
        "Exchanges": READ | WRITE,
        "Credentials": {"secretsmanager:GetSecretValue"},
        f"arn:AWS::Partition:s3:::{CONTENT_BUCKET}": {"s3:ListBucket"},
        f"arn:AWS::Partition:s3:::{CONTENT_BUCKET}/*": {"s3:GetObject"},
        "Bus": {"events:PutEvents"},
        "FetchCollaborationsQueue": RECEIVE | {"sqs:SendMessage"},
        "FetchLog": LOG,
        "*": TRACE,
    },
    "IndexRole": {
        "Banks": READ,
        "Banks where the key is store,build": {"dynamodb:PutItem"},
        "Banks/index/feed": {"dynamodb:Query"},
        "Banks/index/by-bank": {"dynamodb:Query"},
        "Index": {"s3:ListBucket"},
        "Index/*": {"s3:DeleteObject", "s3:GetObject", "s3:PutObject"},
        "IndexNudgesQueue": RECEIVE,
        "IndexLog": LOG,
        "*": TRACE,
    },
    "HashRole": {
        "Uploads": {"s3:ListBucket"},
        "Uploads/*": {"s3:GetObject", "s3:GetObjectVersion"},
        "Banks where the key is signal-type-ratio": READ,
        "Access where the key is event#*": REMEMBER,
        "Bus": {"events:PutEvents"},
        "HashUploadsQueue": RECEIVE,
        "HashLog": LOG,
        "*": TRACE,
    },
    "MatchRole": {
        "Index": {"s3:ListBucket"},
        "Index/*": {"s3:GetObject"},
        "Uploads": {"s3:ListBucket"},
        "Uploads/*": {"s3:GetObject", "s3:GetObjectVersion"},
        "Banks": READ,
        "Access where the key is event#*": REMEMBER,
        "Bus": {"events:PutEvents"},
        "MatchHashedQueue": RECEIVE,
        "MatchLog": LOG,
        "*": TRACE,
    },
    "CurateRole": {
        "Banks": READ | WRITE,
        "Banks/index/by-bank": {"dynamodb:Query"},
        "Exchanges": READ | WRITE,
        "Credentials": {
            "secretsmanager:GetSecretValue",
            "secretsmanager:PutSecretValue",
            "secretsmanager:UpdateSecretVersionStage",
        },
        "Index": {"s3:ListBucket"},
        "Index/*": {"s3:GetObject"},
        "Bus": {"events:PutEvents"},
        "Access where the key is counter,opinion#*": {"dynamodb:GetItem", "dynamodb:UpdateItem"},
        "FetchCollaborationsQueue": {"sqs:SendMessage"},
        "CuratePurgesQueue": RECEIVE | {"sqs:SendMessage"},
        "CurateOpinionsQueue": RECEIVE,
        "CurateLog": LOG,
        "*": TRACE,
    },
    "ForwardRole": {
        "HashFunction": {"lambda:InvokeFunction"},
        "MatchFunction": {"lambda:InvokeFunction"},
        "CurateFunction": {"lambda:InvokeFunction"},
        "ForwardLog": LOG,
        "*": TRACE,
    },
    "AuthorizeRole": {
        "Access where the key is api-key": {"dynamodb:GetItem"},
        "AuthorizeLog": LOG,
        "*": TRACE,
    },
    "FetchScheduleRole": {
        "FetchCollaborationsQueue": {"sqs:SendMessage"},
        "FetchCollaborationsDeadLetters": {"sqs:SendMessage"},
    },
    "CurateResumeScheduleRole": {
        "CuratePurgesQueue": {"sqs:SendMessage"},
        "CuratePurgesDeadLetters": {"sqs:SendMessage"},
    },
    "IndexScheduleRole": {
        "IndexNudgesQueue": {"sqs:SendMessage"},
        "IndexNudgesDeadLetters": {"sqs:SendMessage"},
    },
    "IndexRepairScheduleRole": {
        "IndexNudgesQueue": {"sqs:SendMessage"},
        "IndexNudgesDeadLetters": {"sqs:SendMessage"},
    },
}


def allowed(service: Mapping[str, Any]) -> dict[str, dict[str, set[str]]]:
    """Return what each role of a template is allowed: the actions by resource."""
    roles: dict[str, dict[str, set[str]]] = {}
    for _, policy in named(service, "AWS::IAM::Policy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            assert statement["Effect"] == "Allow"
            for role in policy["Roles"]:
                for resource in as_list(statement["Resource"]):
                    name = reference(resource) + where(statement.get("Condition"))
                    roles.setdefault(reference(role), {}).setdefault(name, set()).update(as_list(statement["Action"]))
    return roles


def where(condition: Any) -> str:
    match condition:
        case None:
            return ""
        case {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": [*keys]}}:
            return f" where the key is {','.join(keys)}"
    raise AssertionError(f"nobody expects the condition {condition}")


@pytest.mark.parametrize("role", MAY)
def test_a_role_may_do_exactly_this(templates: Mapping[str, Mapping[str, Any]], role: str) -> None:
    assert allowed(templates["service"])[role] == MAY[role]


def test_there_is_no_other_role(templates: Mapping[str, Mapping[str, Any]]) -> None:
    assert allowed(templates["service"]).keys() == MAY.keys()
    assert {name for name, _ in named(templates["service"], "AWS::IAM::Role")} == MAY.keys()


def test_no_role_has_a_managed_or_an_inline_policy(templates: Mapping[str, Mapping[str, Any]]) -> None:
    for _, role in named(templates["service"], "AWS::IAM::Role"):
        assert role.keys() == {"AssumeRolePolicyDocument"}


def test_each_role_is_assumed_by_one_service(templates: Mapping[str, Mapping[str, Any]]) -> None:
    for name, role in named(templates["service"], "AWS::IAM::Role"):
        [statement] = role["AssumeRolePolicyDocument"]["Statement"]
        service = "scheduler" if "Schedule" in name else "lambda"
        assert statement["Principal"] == {"Service": f"{service}.amazonaws.com"}


def test_no_action_is_a_wildcard_and_only_tracing_is_on_everything(
    templates: Mapping[str, Mapping[str, Any]],
) -> None:
    for resources in allowed(templates["service"]).values():
        for resource, actions in resources.items():
            assert not any("*" in action for action in actions)
            assert (resource == "*") == (actions == TRACE)


def test_only_rules_may_send_to_queues_from_outside(templates: Mapping[str, Mapping[str, Any]]) -> None:
    rules = {name for name, _ in named(templates["service"], "AWS::Events::Rule")}
    for _, policy in named(templates["service"], "AWS::SQS::QueuePolicy"):
        for statement in policy["PolicyDocument"]["Statement"]:
            if statement["Effect"] == "Allow":
                assert statement["Principal"] == {"Service": "events.amazonaws.com"}
                [rule] = statement["Condition"]["ArnEquals"].values()
                assert reference(rule) in rules


def test_functions_are_invoked_by_the_api_alone(templates: Mapping[str, Mapping[str, Any]]) -> None:
    invoked = {
        reference(permission["FunctionName"]): permission["Principal"]
        for _, permission in named(templates["service"], "AWS::Lambda::Permission")
    }
    assert invoked == dict.fromkeys(
        ("AuthorizeFunction", "ForwardFunction", "HashFunction", "MatchFunction", "CurateFunction"),
        "apigateway.amazonaws.com",
    )
