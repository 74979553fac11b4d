"""How many places are kept for those who go first, and that it is worth them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.flow.fair_queue import LATELY, FairQueue
from spillway_sidecar.flow.reserve import GONE, IDLE, MOST, reserve


@pytest.mark.parametrize(
    ("share", "places", "kept"),
    [
        (0.0, 1000, 0),
        (0.3, 4, 0),
        (0.3, 8, 0),
        (0.3, 16, 1),
        (0.3, 32, 3),
        (0.3, 1000, 3),
        (0.01, 32, 1),
        (0.9, 1000, 11),
        (1.0, 9, 1),
    ],
)
def test_as_many_as_are_seldom_gone_and_few_of_all(share: float, places: int, kept: int):
    assert reserve(share, places) == kept


@given(st.floats(0.001, 1.0), st.integers(1, 100_000))
def test_the_places_that_are_idle_are_few_and_one_more_would_be_too_many_or_for_nothing(share: float, places: int):
    def idle(kept: int) -> float:
        weights = [share**k for k in range(kept + 1)]
        return sum((kept - k) * weight for k, weight in enumerate(weights)) / sum(weights)

    def gone(kept: int) -> float:
        return share**kept / sum(share**k for k in range(kept + 1))

    kept = reserve(share, places)
    assert idle(kept) <= IDLE * places * 1.000001
    assert kept == MOST or gone(kept) <= GONE * 1.000001 or idle(kept + 1) > IDLE * places * 0.999999


def take(queue: FairQueue[str], priority: int, count: int) -> None:
    for _ in range(count):
        queue.offer("", priority=priority, flow_id=b"", cost=1, size_bytes=1, deadline=1e9, now=0.0)
        ticket = queue.head()
        assert ticket is not None
        queue.take(ticket, 0.0)


def test_the_share_above_is_of_what_was_served_last():
    queue: FairQueue[str] = FairQueue(10, 1000)
    take(queue, 10, 20)
    assert queue.share_above(0) == 0.0, "too little to go by"
    take(queue, 0, 60)
    assert queue.share_above(0) == 0.25
    assert queue.share_above(10) == 0.0
    assert queue.share_above(-10) == 1.0
    take(queue, 0, LATELY)
    assert queue.share_above(0) == 0.0, "those are long gone"
