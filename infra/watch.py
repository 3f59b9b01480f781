"""Alarms: what a deployment tells its operator before its users do."""

from dataclasses import dataclass

from aws_cdk import Duration
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_sns as sns
from constructs import Construct

from countermark.aws.settings import DEFAULT_DEPLOYMENT

METRICS_NAMESPACE = "countermark"
"""The namespace of the functions' own metrics. Each has two dimensions: the stage, as `service`, and `deployment`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Raises the alarms of one deployment, and sends them to `topic`; without a topic CloudWatch alone shows them."""

    deployment: str = DEFAULT_DEPLOYMENT
    topic: sns.ITopic | None = None

    def metric(self, name: str, *, stage: str, statistic: str, period: Duration) -> cloudwatch.Metric:
        """Return a metric that the functions of a stage report, of this deployment alone."""
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
        silence_is_bad: bool = False,
    ) -> None:
        """Raise an alarm while `metric` is at `threshold` or above.

        `because` tells whoever is woken what happened and what to do. `silence_is_bad` raises the alarm also
        where the metric is not reported at all.
        """
        silence = cloudwatch.TreatMissingData
        alarm = cloudwatch.Alarm(
            scope,
            id,
            metric=metric,
            threshold=threshold,
            comparison_operator=cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            evaluation_periods=1,
            treat_missing_data=silence.BREACHING if silence_is_bad else silence.NOT_BREACHING,
            alarm_description=because,
        )
        if self.topic is not None:
            alarm.add_alarm_action(actions.SnsAction(self.topic))


MINUTES_5 = Duration.minutes(5)
"""The period of most metrics here: shorter costs more and wakes people for what passes by itself."""

HOUR = Duration.hours(1)
"""The period of metrics that a schedule makes."""
