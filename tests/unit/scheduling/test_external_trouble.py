"""An endpoint that asks for a pause is left alone for so long and no longer; one that a person has to mend says so until it works."""

from __future__ import annotations

from tests.fakes.picking import pick

from spillway_sidecar.scheduling.filters.eligible import Eliminated, eliminate
from spillway_sidecar.scheduling.health import LIMITED_MAX_SECONDS
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState


def endpoint() -> EndpointState:
    return EndpointState("one", False, ClusterSpeed())


def test_a_pause_holds_for_as_long_as_was_asked_for():
    one = endpoint()
    one.limit_rate(5.0, 100.0)
    assert eliminate(one, (), 1, 104.9) is Eliminated.LIMITED
    assert pick([one], 10, 1, 104.9, lambda: 0.5) is None
    assert eliminate(one, (), 1, 105.0) is None


def test_after_a_pause_all_may_come_and_not_one_by_one():
    one = endpoint()
    one.limit_rate(5.0, 100.0)
    for _ in range(3):
        assert pick([one], 10, 1, 105.0, lambda: 0.5) is one
        one.sent(10)
    assert not one.shut


def test_a_pause_is_not_shortened_by_a_later_answer_and_is_bounded():
    one = endpoint()
    one.limit_rate(5.0, 100.0)
    one.limit_rate(0.0, 101.0)
    assert one.limited(104.0)
    one.limit_rate(86_400.0, 101.0)
    assert one.limited(101.0 + LIMITED_MAX_SECONDS - 0.1)
    assert not one.limited(101.0 + LIMITED_MAX_SECONDS)


def test_a_request_that_ends_well_meanwhile_does_not_end_the_pause():
    one = endpoint()
    one.sent(10)
    one.limit_rate(5.0, 100.0)
    one.done(10)
    one.succeeded(101.0)
    assert one.limited(102.0)


def test_trouble_is_told_until_a_request_succeeds():
    one = endpoint()
    one.trouble = ("KeyRefused", "it answers 401")
    one.failed(100.0, hard=True)
    assert one.info()["trouble"] == "KeyRefused: it answers 401"
    one.succeeded(101.0)
    assert one.info()["trouble"] is None
