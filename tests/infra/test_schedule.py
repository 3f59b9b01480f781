import pytest
from aws_cdk import App, Duration, Stack

from infra.queue import WatchedQueue
from infra.schedule import send_regularly
from infra.watch import Watch


@pytest.mark.parametrize("seconds", [30, 90])
def test_a_schedule_that_the_scheduler_does_not_know_is_refused(seconds: int) -> None:
    stack = Stack(App(), "stack")
    queue = WatchedQueue(
        stack, "Queue", function_timeout=Duration.minutes(1), oldest_message=Duration.hours(1), watch=Watch()
    )
    with pytest.raises(ValueError, match="whole number of minutes"):
        send_regularly(stack, "S", every=Duration.seconds(seconds), message={}, to=queue, description="")
