"""Which replica goes first: the idle one, then the one with the colder cache; and when that is worth a write."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.scaling.victims import Work, cost, differs, misleads

TOKENS = st.floats(0, 1e10)


@given(st.floats(1, 1e10), TOKENS, TOKENS)
def test_an_idle_one_goes_before_a_busy_one_whatever_their_caches_hold(tokens: float, warm: float, other: float) -> None:
    assert cost(0, warm) < cost(tokens, other) < 2**31


@given(TOKENS, TOKENS, TOKENS)
def test_more_under_way_or_a_warmer_cache_costs_no_less(tokens: float, more: float, warm: float) -> None:
    assert cost(tokens + more, warm) >= cost(tokens, warm)
    assert cost(tokens, warm + more) >= cost(tokens, warm)


def test_of_idle_ones_the_coldest_goes_first() -> None:
    costs = [cost(0, warm) for warm in (0, 10, 100, 1000, 10_000)]
    assert all(one < other for one, other in pairwise(costs))


def test_work_is_forgotten_in_half_a_minute_and_its_cache_in_ten() -> None:
    work = Work(0.0)
    for second in range(1, 601):
        work.observe(float(second), 1000.0)
    assert 990 < work.busy <= 1000
    assert 600 < work.warm < 660
    for second in range(601, 901):
        work.observe(float(second), 0.0)
    assert work.busy < 1
    assert work.warm > 300
    assert cost(work.busy, work.warm) < 1000


def test_a_clock_that_stands_changes_nothing() -> None:
    work = Work(5.0)
    work.observe(5.0, 100.0)
    work.observe(4.0, 100.0)
    assert (work.busy, work.warm) == (0.0, 0.0)


def test_a_little_more_or_less_is_not_worth_a_write() -> None:
    assert not differs(cost(1000, 1000), cost(1900, 1500))
    assert differs(cost(1000, 1000), cost(5000, 1000))
    assert differs(cost(0, 1000), cost(1, 1000))
    assert differs(cost(0, 0), cost(0, 10))
    assert not differs(0, cost(0, 2))


def test_at_the_moment_of_the_choice_it_is() -> None:
    assert misleads(cost(1000, 0), cost(2100, 0))
    assert not misleads(cost(1000, 0), cost(1010, 0))
