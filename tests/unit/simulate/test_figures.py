"""Figures of a run: percentiles, shares, and the sign of a limit cycle."""

from __future__ import annotations

import math
import random

import pytest

from spillway.simulate.measure import autocorrelation, measure, percentile
from spillway.simulate.traffic import Arrival, Request
from spillway.simulate.world import Run


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.9, 90), (0.99, 99), (0.999, 100), (0.0, 1)])
def test_a_percentile_is_the_nearest_rank(share: float, value: int):
    assert percentile(range(1, 101), share) == value


def test_there_is_no_percentile_of_nothing():
    assert math.isnan(percentile([], 0.5))


def ended(index: int, at: float, ttft: float, endpoint: int, *, failed: bool = False, hit: bool = False) -> Request:
    request = Request(index, Arrival(at, 100, 10, "p", 50))
    request.endpoint, request.failed, request.hit = endpoint, failed, hit
    request.first_at, request.ended_at = at + ttft, at + 2 * ttft
    return request


def test_only_requests_after_the_warm_up_count_and_failed_ones_are_no_good():
    requests = [
        ended(0, 1.0, 9.0, 0),
        ended(1, 10.0, 1.0, 0, hit=True),
        ended(2, 11.0, 3.0, 0),
        ended(3, 12.0, 1.0, 1, failed=True),
        ended(4, 13.0, 1.0, 1, hit=True),
    ]
    run = Run(requests, [[], []], endpoints=2, faulty=1, preempted=0)
    figures = measure(run, warmup_seconds=5.0, slo_seconds=2.0, interval_seconds=1.0, fault_at_seconds=8.0)
    assert figures.requests == 4
    assert figures.ttft_p99_seconds == pytest.approx(3.0)
    assert figures.e2e_p99_seconds == pytest.approx(6.0)
    assert figures.goodput_ratio == 0.5
    assert figures.failed_ratio == 0.25
    assert figures.hit_ratio == pytest.approx(2 / 3)
    assert figures.worst_share == 1.0
    assert figures.faulty_share == pytest.approx(2 / 3)  # of those from 11 s on


def test_endpoints_that_take_turns_show_as_a_cycle():
    turns = [[1000 if (step // 10) % 4 == index else 0 for step in range(600)] for index in range(4)]
    assert autocorrelation(turns, 0, 1.0) > 0.8


def test_chance_shows_no_cycle():
    rng = random.Random(1)
    noise = [[rng.randrange(1000) for _ in range(600)] for _ in range(16)]
    assert autocorrelation(noise, 0, 1.0) < 0.1


def test_a_swing_of_all_together_is_no_cycle_among_endpoints():
    rng = random.Random(1)
    swing = [[500 + round(400 * math.sin(step / 10)) + rng.randrange(100) for step in range(600)] for _ in range(16)]
    assert autocorrelation(swing, 0, 1.0) < 0.1


def test_too_short_a_run_says_nothing():
    assert autocorrelation([[1, 2, 3], [3, 2, 1]], 0, 1.0) == 0.0
