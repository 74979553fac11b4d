"""What is asked of a cluster that scales, and how what has waited for a replica is let go."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.scheduling.arrivals import Arrivals
from spillway_sidecar.scheduling.health import SLOW_START_SECONDS
from spillway_sidecar.scheduling.ramp import FIRST_REQUESTS, ramp
from spillway_sidecar.scheduling.speed import EXPECTED_OUTPUT_TOKENS


def test_a_request_counts_when_it_comes_and_is_put_right_when_it_ends():
    arrivals = Arrivals()
    counted = arrivals.add(100)
    assert counted == 100 + EXPECTED_OUTPUT_TOKENS
    assert arrivals.drain() == counted
    arrivals.correct(counted, 120, 1000)
    assert arrivals.drain() == 1120 - counted
    assert arrivals.add(100) > counted, "answers are longer here than was thought"


def test_what_was_counted_too_much_is_taken_off_later():
    arrivals = Arrivals()
    counted = arrivals.add(10_000)
    assert arrivals.drain() == counted
    arrivals.correct(counted, 10, 1)
    assert arrivals.drain() == 0
    again = arrivals.add(20_000)
    assert arrivals.drain() == 11 - counted + again


def test_it_is_quiet_until_something_comes_and_after_a_drain_without():
    arrivals = Arrivals()
    assert arrivals.quiet
    arrivals.add(1)
    assert not arrivals.quiet
    arrivals.drain()
    assert not arrivals.quiet
    arrivals.drain()
    assert arrivals.quiet


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000))), max_size=60)
)
def test_over_time_the_sum_is_what_requests_came_to(steps: list[tuple[int, int, int] | None]):
    arrivals, told, true = Arrivals(), 0, 0
    for step in steps:
        if step is None:
            told += arrivals.drain()
        else:
            estimate, prompt, answer = step
            arrivals.correct(arrivals.add(estimate), prompt, answer)
            true += prompt + answer
    arrivals.add(1_000_000)  # pays what was told too much
    assert told + arrivals.drain() == true + 1_000_000 + int(arrivals.answer_tokens)


@pytest.mark.parametrize(("limit", "routers", "first"), [(256, 1, 8), (256, 2, 4), (256, 100, 1), (3, 1, 3), (1, 1, 1)])
def test_a_replica_begins_with_a_few(limit: int, routers: int, first: int):
    assert min(limit, ramp(limit, routers, 0.0)) == first


@given(st.integers(1, 100_000), st.integers(1, 1000), st.floats(0, 10), st.floats(0, 10))
def test_the_few_become_all_within_a_slow_start(limit: int, routers: int, one: float, other: float):
    earlier, later = sorted((one, other))
    assert 1 <= ramp(limit, routers, earlier) <= max(limit, ramp(limit, routers, later), FIRST_REQUESTS)
    assert ramp(limit, routers, earlier) <= max(ramp(limit, routers, later), FIRST_REQUESTS)
    assert ramp(limit, routers, SLOW_START_SECONDS + earlier) == limit
