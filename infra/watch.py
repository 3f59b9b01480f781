"""Alarms, so that the operator of a deployment notices problems before the users do."""

from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from countermark.aws.settings import DEFAULT_DEPLOYMENT

METRICS_NAMESPACE = "countermark"
"""The namespace of the metrics that the functions report.

Each metric has two dimensions: `service`, which is the stage, and `deployment`.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Creates the alarms of one deployment. They are sent to `topic`; if it is None, only CloudWatch shows them."""

    deployment: str = DEFAULT_DEPLOYMENT
    topic: sns.ITopic | None = None

    def metric(self, name: str, *, stage: str, statistic: str, period: Duration) -> cloudwatch.Metric:
        """Return a metric that the functions of a stage report, for this deployment only."""
        return cloudwatch.Metric(
            namespace=METRICS_NAMESPACE,
            metric_name=name,
            dimensions_map={"service": stage, "deployment": self.deployment},
            statistic=statistic,
            period=period,
        )

    def alarm(
        self,
        scope: Construct,
        id: str,
        *,
        metric: cloudwatch.IMetric,
        threshold: float,
        because: str,
        alarm_if_missing: bool = False,
    ) -> None:
        """Create an alarm that is raised while `metric` is at or above `threshold`.

        `because` is the alarm's description: what happened, and what to do. With `alarm_if_missing`, the alarm is also
        raised if the metric is not reported at all.
        """
        missing_data = cloudwatch.TreatMissingData
        alarm = cloudwatch.Alarm(
            scope,
            id,
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=missing_data.BREACHING if alarm_if_missing else missing_data.NOT_BREACHING,
            alarm_description=because,
        )
        if self.topic is not None:
            alarm.add_alarm_action(actions.SnsAction(self.topic))


MINUTES_5 = Duration.minutes(5)
"""The period of most metrics. A shorter period costs more, and raises alarms for problems that end by themselves."""

HOUR = Duration.hours(1)
"""The period of the metrics that scheduled runs report."""
