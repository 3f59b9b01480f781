"""Events: the ids of facts."""

from countermark.domain.event import event_id


def test_the_same_fact_has_the_same_id_and_another_has_another() -> None:
    assert event_id("a", "b") == event_id("a", "b")
    assert event_id("a", "b") != event_id("ab", "")
    assert event_id("a", "b") != event_id("b", "a")
    assert len(event_id("x")) == 32
