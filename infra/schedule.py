"""Schedules. They send messages to a stage's queue at fixed intervals."""

import json
from collections.abc import Mapping

from aws_cdk import Duration
from aws_cdk import aws_iam as iam
from aws_cdk import aws_scheduler as scheduler
from constructs import Construct

from infra.queue import WatchedQueue


def send_regularly(
    scope: Construct,
    id: str,
    *,
    every: Duration,
    message: Mapping[str, bool],
    to: WatchedQueue,
    description: str,
) -> None:
    """Send a message to a queue at the interval `every`. A message that cannot be sent goes to the dead-letter queue.

    Raises:
        ValueError: `every` is not a whole number of minutes, which is the scheduler's unit.
    """
    minutes, rest = divmod(every.to_seconds(), 60)
    if rest or minutes < 1:
        raise ValueError(f"a schedule runs every whole number of minutes, not every {every.to_human_string()}")
    role = iam.Role(scope, f"{id}Role", assumed_by=iam.ServicePrincipal("scheduler.amazonaws.com"))
    granted = iam.Grant.add_to_principal(
        grantee=role,
        actions=["sqs:SendMessage"],
        resource_arns=[to.queue.queue_arn, to.dead_letters.queue_arn],
    )
    schedule = scheduler.CfnSchedule(
        scope,
        id,
        description=description,
        schedule_expression=f"rate({minutes} minute{'' if minutes == 1 else 's'})",
        flexible_time_window=scheduler.CfnSchedule.FlexibleTimeWindowProperty(mode="OFF"),
        target=scheduler.CfnSchedule.TargetProperty(
            arn=to.queue.queue_arn,
            role_arn=role.role_arn,
            input=json.dumps(message),
            dead_letter_config=scheduler.CfnSchedule.DeadLetterConfigProperty(arn=to.dead_letters.queue_arn),
        ),
    )
    granted.apply_before(schedule)
