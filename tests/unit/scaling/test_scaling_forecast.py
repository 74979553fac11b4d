"""Demand by time of day: learned from days, raised ahead of time, and never lowering anything."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.scaling.forecast import Daily, ForecastPolicy

DAY = 86_400.0
HOUR = 3600.0
MIDNIGHT = 20_000 * DAY


def office(now: float) -> float:
    """Two replicas at night, ten from eight to six."""
    return 10.0 if 8 * HOUR <= now % DAY < 18 * HOUR else 2.0


def learn(daily: Daily, days: float, demand: Callable[[float], float], since: float = MIDNIGHT, step: float = 60.0) -> float:
    now = since
    while now < since + days * DAY:
        daily.record(now, demand(now))
        now += step
    return now


def test_one_day_is_no_pattern():
    daily = Daily()
    now = learn(daily, 1.0, office)
    assert daily.floor(now, 120.0) is None
    assert daily.replicas(now, 120.0) == 0


def test_after_two_days_the_morning_is_expected():
    daily = Daily()
    now = learn(daily, 2.0, office)
    eight = now + 8 * HOUR
    assert daily.replicas(eight - 700.0, 300.0) == 2
    assert daily.replicas(eight - 300.0, 300.0) == math.ceil(10 / 1.15)


@pytest.mark.parametrize("lead_seconds", [60.0, 300.0, 900.0])
def test_it_looks_as_far_ahead_as_a_replica_takes_to_start(lead_seconds: float):
    daily = Daily()
    now = learn(daily, 3.0, office)
    assert daily.floor(now + 8 * HOUR - lead_seconds, lead_seconds) == pytest.approx(10.0, rel=0.05)


def test_what_was_asked_for_ahead_stays_through_a_short_dip():
    daily = Daily()
    now = learn(daily, 3.0, lambda at: 2.0 if 9 * HOUR <= at % DAY < 9 * HOUR + 600 else office(at))
    seen = {daily.replicas(now + 8.5 * HOUR + second, 120.0) for second in range(0, 3600, 30)}
    assert len(seen) == 1


def test_a_busier_day_is_expected_to_go_on_so():
    usual, busy = Daily(), Daily()
    for daily in (usual, busy):
        learn(daily, 3.0, office)
    now = learn(usual, 0.5, office, since=MIDNIGHT + 3 * DAY)
    learn(busy, 0.5, lambda at: 1.3 * office(at), since=MIDNIGHT + 3 * DAY)
    assert (busy.floor(now, 120.0) or 0) > 1.15 * (usual.floor(now, 120.0) or 0)


def test_one_odd_hour_does_not_multiply_the_day():
    daily = Daily()
    learn(daily, 3.0, office)
    now = learn(daily, 0.1, lambda _: 500.0, since=MIDNIGHT + 3 * DAY)
    floor = daily.floor(now + 6 * HOUR, 120.0)
    assert floor is not None
    assert floor <= 10.0 * ForecastPolicy().most_level + 1e-6


def test_weeks_have_weekends_once_there_are_two_of_them():
    def weekly(now: float) -> float:
        return 1.0 if (now // DAY) % 7 >= 5 else office(now)

    daily = Daily()
    monday = MIDNIGHT - (MIDNIGHT // DAY % 7) * DAY
    now = learn(daily, 14.3, weekly, since=monday, step=150.0)
    assert daily.floor(now + 0.05 * DAY, 300.0) == pytest.approx(10.0, rel=0.1)
    now = learn(daily, 4.9, weekly, since=now, step=150.0)
    assert daily.floor(now + 0.2 * DAY, 300.0) == pytest.approx(1.0, rel=0.1)


def test_what_was_not_measured_teaches_nothing():
    daily, holes = Daily(), Daily()
    now = learn(daily, 4.0, office)
    learn(holes, 3.0, office)
    assert holes.floor(now + 9 * HOUR, 120.0) == pytest.approx(daily.floor(now + 9 * HOUR, 120.0), rel=0.01)


def test_next_to_nothing_wakes_nobody():
    daily = Daily()
    now = learn(daily, 3.0, lambda _: 0.01)
    assert daily.replicas(now, 120.0) == 0


def test_noise_around_a_whole_number_gives_one_floor():
    rng = random.Random(1)
    daily = Daily()
    now = learn(daily, 3.0, lambda _: max(0.0, rng.gauss(4.0, 1.0)), step=20.0)
    assert {daily.replicas(now + second, 120.0) for second in range(0, 86_400, 120)} <= {4}


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(0, 1e4)), max_size=40))
def test_whatever_is_told_in_whatever_order(entries: list[tuple[float, float]]):
    daily = Daily()
    for wall, need in entries:
        daily.record(wall, need)
        floor = daily.floor(wall, 300.0)
        assert floor is None or 0.0 <= floor <= 1.5 * 1e4 + 1.5
    assert set(daily.info()) == {"level", "known_of_day", "known_of_week"}
