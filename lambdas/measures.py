"""The metrics that functions report."""

import os

from aws_lambda_powertools import Metrics

from countermark.aws.settings import deployment_name


def stage_metrics() -> Metrics:
    """Return the metrics of a function. Each carries two dimensions: the stage as `service`, and the `deployment`.

    One account may hold several deployments, and without the second dimension they would share each metric, and so
    each alarm.
    """
    metrics = Metrics()
    metrics.set_default_dimensions(deployment=deployment_name(os.environ))
    return metrics
