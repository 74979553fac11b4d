"""Filter and pick."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.picking import pick

from spillway_sidecar.scheduling.filters.eligible import Candidate, Eliminated, eliminate
from spillway_sidecar.scheduling.pickers.soonest import SCAN_ALL
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.loads import Load

COST = 100


def endpoints(count: int, limit: int = 64) -> list[EndpointState]:
    """Fresh ones."""
    speed = ClusterSpeed()
    made = [EndpointState(f"e{n}", True, speed) for n in range(count)]
    for state in made:
        state.limit(limit, 0)
    return made


@st.composite
def pictures(draw: st.DrawFn) -> list[EndpointState]:
    """Endpoints in any state."""
    made = endpoints(draw(st.integers(0, 20)), limit=3)
    for state in made:
        for _ in range(draw(st.integers(0, 3))):
            state.sent(draw(st.integers(1, 500)))
        match draw(st.integers(0, 6)):
            case 0:
                state.mark(draining=True)
            case 1:
                state.mark(blocked=True)
            case 2:
                state.failed(draw(st.floats(90, 100)), hard=True)
            case 3:
                state.report(Load(engine_up=False), draw(st.floats(98, 100)))
            case 4:
                state.report(Load(in_flight=draw(st.integers(0, 4))), draw(st.floats(90, 100)))
    return made


@given(pictures(), st.integers(1, 4), st.data())
def test_only_an_eligible_endpoint_is_ever_taken_and_one_is_if_there_is_any(
    made: list[EndpointState], routers: int, data: st.DataObject
):
    tried = tuple(data.draw(st.lists(st.sampled_from(made), max_size=2))) if made else ()
    seen: list[Candidate] = []
    taken = pick(made, COST, routers, 100.0, random.Random(data.draw(st.integers(0, 99))).random, tried, seen)
    eligible = [state for state in made if eliminate(state, tried, routers, 100.0) is None]
    if taken is None:
        assert not eligible
    else:
        assert taken in eligible
    for name, verdict, _ in seen:
        state = next(state for state in made if state.id == name)
        gone = eliminate(state, tried, routers, 100.0)
        if gone is not None:
            assert verdict is gone
        else:
            assert verdict == pytest.approx((state.wait_tokens(routers, 100.0) + COST) * state.factor)
    if taken is not None and len(made) <= SCAN_ALL and not any(state.shut for state in eligible):
        waits = {state: (state.wait_tokens(routers, 100.0) + COST) * state.factor for state in eligible}
        assert waits[taken] == min(waits.values())


@pytest.mark.parametrize("count", [2, 5, SCAN_ALL, SCAN_ALL + 1, 40])
def test_equal_endpoints_get_equal_shares(count: int):
    made = endpoints(count)
    rng = random.Random(3)
    taken = Counter(pick(made, COST, 1, 0.0, rng.random).id for _ in range(count * 500))  # type: ignore[union-attr]
    assert len(taken) == count
    assert all(400 < times < 600 for times in taken.values()), taken


def test_sends_are_spread_by_the_own_count_alone():
    made = endpoints(6)
    rng = random.Random(1)
    for _ in range(60):
        taken = pick(made, COST, 4, 0.0, rng.random)
        assert taken is not None
        taken.sent(COST)
    assert {state.in_flight for state in made} == {10}


def test_of_many_the_sample_avoids_the_loaded_and_finds_the_last_with_room():
    made = endpoints(50, limit=10)
    rng = random.Random(5)
    for state in made[:25]:
        for _ in range(9):
            state.sent(COST)
    taken = [pick(made, COST, 1, 0.0, rng.random) for _ in range(300)]
    assert sum(state in made[25:] for state in taken) > 260
    for state in made[:49]:
        state.mark(draining=True)
    assert all(pick(made, COST, 1, 0.0, rng.random) is made[49] for _ in range(20))


def test_one_that_reports_nothing_for_ever_gets_no_more_than_its_share():
    made = endpoints(4, limit=1000)
    rng = random.Random(2)
    liar = made[0]
    now = 0.0
    for _ in range(400):
        now += 0.01
        taken = pick(made, COST, 1, now, rng.random)
        assert taken is not None
        taken.sent(COST)
        for state in made:
            state.report(Load(in_flight=0 if state is liar else state.in_flight, in_flight_tokens=0 if state is liar else state.in_flight_tokens), now)  # fmt: skip
    assert liar.in_flight <= 110


def test_filters_have_names():
    (state,) = endpoints(1, limit=1)
    assert eliminate(state, (), 1, 0.0) is None
    assert eliminate(state, (state,), 1, 0.0) is Eliminated.TRIED
    state.sent(COST)
    assert eliminate(state, (), 1, 0.0) is Eliminated.FULL
    state.done(COST)
    state.failed(0.0, hard=True)
    assert eliminate(state, (), 1, 0.0) is Eliminated.DOWN
    state.mark(blocked=True)
    assert eliminate(state, (), 1, 0.0) is Eliminated.BLOCKED
    state.report(Load(draining=True), 0.0)
    assert eliminate(state, (), 1, 0.0) is Eliminated.DRAINING


def test_one_that_was_down_gets_one_probe_at_a_time_when_its_time_is_over():
    made = endpoints(3)
    rng = random.Random(4)
    for _ in range(4):
        made[1].failed(0.0, hard=True)
    assert all(pick(made, COST, 1, 3.9, rng.random) is not made[1] for _ in range(50))
    assert pick(made, COST, 1, 4.1, rng.random) is made[1], "although by its penalty it is the last"
    made[1].sent(COST)
    assert all(pick(made, COST, 1, 4.2, rng.random) is not made[1] for _ in range(50))
    made[1].done(COST)
    assert pick(made, COST, 1, 4.3, rng.random, (made[0],)) is made[2], "a retry is no probe"
    made[1].sent(COST)
    made[1].succeeded(4.4)
    made[1].done(COST)
    assert eliminate(made[1], (), 1, 4.5) is None
    assert pick(made, COST, 1, 4.5, rng.random) is not made[1], "it starts slowly"


def test_one_that_said_it_is_away_is_asked_again_by_one():
    made = endpoints(2)
    rng = random.Random(4)
    made[0].report(Load(engine_up=False), 10.0)
    assert pick(made, COST, 1, 10.5, rng.random) is made[1]
    assert pick(made, COST, 1, 11.1, rng.random) is made[0]
    made[0].sent(COST)
    assert pick(made, COST, 1, 11.1, rng.random) is made[1]
    made[0].report(Load(in_flight=1), 11.2)
    assert {pick(made, COST, 1, 11.2, rng.random) for _ in range(50)} >= {made[1]}
    assert eliminate(made[0], (), 1, 11.2) is None
