"""What is said of a rate, and when nothing is."""

import pytest

from spillway_sidecar.flow.rate import EVENTS, Rate


def regular(seconds: float, count: int) -> Rate:
    """So many events, one each `seconds`, the last of them now."""
    rate = Rate(0.0)
    for number in range(1, count + 1):
        rate.add(number * seconds)
    return rate


def test_of_few_events_nothing_is_said_however_long_they_take():
    rate = regular(20.0, EVENTS - 1)
    assert rate.per_second(1000.0) is None


def test_of_a_moment_nothing_is_said_however_much_happens_in_it():
    rate = regular(0.001, 100)
    assert rate.per_second(0.1) is None


@pytest.mark.parametrize("seconds", [0.0002, 0.002, 0.1, 1.0, 10.0, 60.0])
def test_a_regular_rate_is_told_within_a_tenth_right_after_an_event_and_right_before_one(seconds: float):
    for count in (2000, 2001):
        rate = regular(seconds, count)
        assert rate.per_second(count * seconds) == pytest.approx(1 / seconds, rel=0.1)
        assert rate.per_second((count + 0.999) * seconds) == pytest.approx(1 / seconds, rel=0.15)


def test_what_was_long_ago_is_forgotten():
    rate = regular(0.01, 1000)
    for number in range(1, 301):
        rate.add(10.0 + number * 0.1)
    assert rate.per_second(40.0) == pytest.approx(10.0, rel=0.1)


def test_nothing_for_long_is_a_rate_that_falls():
    rate = regular(0.1, 100)
    falling = [rate.per_second(10.0 + seconds) or 0.0 for seconds in (1, 5, 20, 100)]
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] < 0.1


def test_a_standstill_is_forgotten_within_five_seconds():
    rate = regular(0.1, 100)
    for number in range(1, 51):
        rate.add(1000.0 + number * 0.1)
    assert rate.per_second(1005.0) == pytest.approx(10.0, rel=0.1)
