"""The CloudWatch metrics of the functions."""

import os

from aws_lambda_powertools import Metrics

from countermark.aws.settings import deployment_name


def stage_metrics() -> Metrics:
    """Return the metrics of a function.

    Each metric has two dimensions: `service`, which is the stage, and `deployment`.

    One AWS account can hold several deployments. Without the dimension `deployment`, they would share metrics and
    alarms.
    """
    metrics = Metrics()
    metrics.set_default_dimensions(deployment=deployment_name(os.environ))
    return metrics
