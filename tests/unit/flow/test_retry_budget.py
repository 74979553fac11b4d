"""The retry budget: a share of what is in flight, never below one, none at all when the share is nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.flow.budget import BURST, RetryBudget


def emptied(percent: int) -> RetryBudget:
    """A budget of which nothing is saved."""
    budget = RetryBudget(percent)
    for _ in range(BURST):
        budget.take()
        budget.give_back()
    budget.spent_total = budget.denied_total = budget.retrying = 0
    return budget


@pytest.mark.parametrize(
    ("percent", "in_flight", "places"), [(10, 0, 1), (10, 1, 1), (10, 19, 1), (10, 20, 2), (10, 99, 9), (100, 7, 7), (0, 50, 0), (1, 99, 1)]
)  # fmt: skip
def test_so_many_may_retry(percent: int, in_flight: int, places: int):
    budget = emptied(percent)
    budget.in_flight = in_flight
    assert [budget.take() for _ in range(places + 2)] == [True] * places + [False] * 2
    assert budget.info() == {
        "in_flight": in_flight,
        "retrying": places,
        "percent": percent,
        "spent_total": places,
        "denied_total": 2,
        "hedge_percent": 0,
        "hedged_total": 0,
    }


def test_a_place_given_back_can_be_taken_again():
    budget = emptied(10)
    assert budget.take()
    assert not budget.take()
    budget.give_back()
    assert budget.take()


@given(st.integers(1, 100), st.lists(st.sampled_from(["come", "go", "take", "give"]), max_size=80))
def test_no_more_retry_than_the_share_of_those_in_flight(percent: int, steps: list[str]):
    budget = emptied(percent)
    taken = 0
    for step in steps:
        if step == "come":
            budget.in_flight += 1
        elif step == "go" and budget.in_flight > taken:
            budget.in_flight -= 1
        elif step == "take":
            allowed = max(1, budget.in_flight * percent // 100)
            assert budget.take() is (taken < allowed)
            taken += taken < allowed
        elif step == "give" and taken:
            budget.give_back()
            taken -= 1
        assert budget.info()["retrying"] == taken


def test_what_was_left_of_the_share_is_there_when_an_endpoint_dies():
    budget = RetryBudget(10)
    for _ in range(1000):  # well, one after the other, a hundred under way
        budget.begun_total += 1
    budget.in_flight = 100
    assert sum(budget.take() for _ in range(100)) == 100
    assert not budget.take(), "no more than were under way"


def test_in_the_long_run_retries_stay_within_the_share():
    budget = RetryBudget(10)
    taken = 0
    for _ in range(10_000):  # each fails, none is answered
        budget.begun_total += 1
        budget.in_flight = 20
        if budget.take():
            taken += 1
            budget.give_back()
        budget.retrying = max(budget.retrying, 2)
    assert 900 <= taken <= 1030


def test_hedges_are_a_share_of_the_traffic_with_no_floor():
    budget = RetryBudget(10, 2)
    assert not budget.take_hedge()
    hedged = 0
    for _ in range(10_000):
        budget.begun_total += 1
        hedged += budget.take_hedge()
    assert 195 <= hedged <= 200
    budget.begun_total += 100_000
    assert sum(budget.take_hedge() for _ in range(100)) == 10, "what was saved is bounded"
    budget.hedge_percent = 0
    budget.begun_total += 100_000
    assert not budget.take_hedge()


def test_a_router_that_has_just_started_has_something_saved():
    budget = RetryBudget(10)
    assert sum(budget.take() for _ in range(100)) == BURST
    assert not RetryBudget(0).take()
