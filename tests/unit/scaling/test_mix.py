"""The cheapest backends of a model grow first and shrink last."""

from __future__ import annotations

import pytest

from spillway_operator.scaling.cost import Spending, per_million_tokens, worth_telling
from spillway_operator.scaling.mix import Option, groups, needs


def l4(ready: int = 0, asked_for: int | None = None, most: int = 4) -> Option:
    return Option("l4", 0.7, 1000.0, ready, ready if asked_for is None else asked_for, most)  # 0.19 for a million


def h100(ready: int = 0, asked_for: int | None = None, most: int = 8) -> Option:
    return Option("h100", 7.2, 4000.0, ready, ready if asked_for is None else asked_for, most)  # 0.50


def test_the_price_of_a_token():
    assert per_million_tokens(3.6, 1000.0) == pytest.approx(1.0)
    assert l4().per_million_tokens < h100().per_million_tokens


@pytest.mark.parametrize(
    ("options", "demand", "expected"),
    [
        ([h100(), l4()], 500.0, {"l4": 0.5, "h100": 0.0}),
        ([h100(), l4(ready=4)], 4000.0, {"l4": 4.0, "h100": 0.0}),
        ([h100(), l4(ready=4)], 12_000.0, {"l4": 4.0, "h100": 2.0}),  # the cheap ones are as many as they may be
        ([h100(ready=1), l4()], 4000.0, {"l4": 4.0, "h100": 1.0}),  # the dear one stays until they are there
        ([h100(ready=1), l4(ready=2, asked_for=4)], 4000.0, {"l4": 4.0, "h100": 0.5}),
        ([h100(ready=1), l4(ready=4)], 4000.0, {"l4": 4.0, "h100": 0.0}),
        ([h100(ready=3), l4(ready=4)], 8000.0, {"l4": 4.0, "h100": 1.0}),  # less is asked: the dear ones go first
        ([h100(ready=1), l4(ready=0, most=4)], 8000.0, {"l4": 4.0, "h100": 1.0}),
    ],
)
def test_the_cheap_end_is_filled_first_and_emptied_last(options: list[Option], demand: float, expected: dict[str, float]):
    assert needs(options, demand) == pytest.approx(expected)


def test_backends_that_share_anything_are_one_group():
    assert groups([("a", "b"), ("c",), ("b", "d"), ("c", "e")]) == [{"a", "b", "d"}, {"c", "e"}]


@pytest.mark.parametrize(
    ("told", "cost", "expected"),
    [
        (None, None, False),
        (None, 1.0, True),
        (1.0, None, True),
        (1.0, 1.05, False),
        (1.0, 1.2, True),
        (1.2, 1.0, True),
        (1.0, 0.95, False),
    ],
)
def test_a_cost_is_told_when_it_has_moved(told: float | None, cost: float | None, expected: bool):
    assert worth_telling(told, cost) is expected


def test_what_was_paid_is_over_what_was_served():
    spending = Spending()
    assert spending.per_million_tokens is None
    for _ in range(1000):
        spending.add(2.0, 2 * 3.6 / 3600, 500.0)  # two replicas, half busy
    assert spending.per_million_tokens == pytest.approx(4.0)
    for _ in range(300):
        spending.add(2.0, 2 * 3.6 / 3600, 2000.0)
    assert 1.0 < (spending.per_million_tokens or 0.0) < 1.4
