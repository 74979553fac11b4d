"""One endpoint's picture: what counts as load, how long words hold, and how failures and slowness come and go."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.picking import Chance, request

from spillway_sidecar.scheduling.filters.eligible import Eliminated, eliminate
from spillway_sidecar.scheduling.health import (
    AWAY_SECONDS,
    DOWN_AFTER_FAILURES,
    DOWN_MAX_SECONDS,
    PENALTY_MAX,
    PENALTY_STEP,
    SLOW_START_SECONDS,
)
from spillway_sidecar.scheduling.pickers.soonest import soonest
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import BASE_TOKENS, ClusterSpeed, request_cost
from spillway_sidecar.scheduling.state import PROBE_TURNS, RUNNING_TOKENS, STALE_SECONDS, WORD_HALF_LIFE_SECONDS, EndpointState
from spillway_wire.loads import Load

COST = request_cost(100)


def endpoint(name: str = "e", *, inbound: bool = True, speed: ClusterSpeed | None = None) -> EndpointState:
    """A fresh one."""
    state = EndpointState(name, inbound, speed or ClusterSpeed())
    state.limit(64, 16)
    return state


@given(
    st.integers(1, 8), st.integers(0, 10_000), st.lists(st.integers(1, 2000), max_size=10), st.lists(st.integers(1, 2000), max_size=10)
)  # fmt: skip
def test_what_is_before_a_request_is_the_own_and_of_others_the_larger_of_the_word_and_the_own_count(
    routers: int, told: int, before: list[int], after: list[int]
):
    state = endpoint()
    state.limit(1000, 0)
    for tokens in before:
        state.sent(tokens)
        state.awaits(tokens)
    state.report(Load(waiting_tokens=told), 10.0)
    for tokens in after:
        state.sent(tokens)
        state.awaits(tokens)
    own = sum(before) + sum(after) + RUNNING_TOKENS * len(before + after)
    others = max(0, told - sum(before) - RUNNING_TOKENS * len(before))
    assert state.wait_tokens(routers, 10.0) == pytest.approx(BASE_TOKENS + own + max(others, (routers - 1) * own))
    for tokens in before + after:
        state.arrived(tokens)
        state.done(tokens)
    assert (state.in_flight, state.in_flight_tokens, state.awaiting_tokens) == (0, 0, 0)


def test_a_word_counts_a_request_no_more_whose_first_token_comes_with_it():
    state = endpoint()
    state.sent(COST)
    state.awaits(COST)
    state.report(Load(in_flight=1, waiting_tokens=300), 0.0, COST)
    state.arrived(COST)
    assert state.wait_tokens(1, 0.0) == pytest.approx(BASE_TOKENS + 300 + RUNNING_TOKENS)


def test_a_lone_router_takes_an_endpoint_that_it_never_tried_for_idle():
    speed = ClusterSpeed()
    tried, other = endpoint(speed=speed), endpoint(speed=speed)
    for now in range(20):
        tried.sent(COST)
        tried.awaits(COST)
        tried.report(Load(in_flight=1, in_flight_tokens=COST, waiting_tokens=COST), float(now))
        tried.arrived(COST)
        tried.done(COST)
        tried.report(Load(), now + 0.1)
        assert other.wait_tokens(1, now + 0.1) == tried.wait_tokens(1, now + 0.1) == BASE_TOKENS


def test_a_word_regresses_to_the_mean_of_all_words_and_not_to_nothing():
    speed = ClusterSpeed()
    speed.others = 1000.0
    for told in (0, 5000):
        state = endpoint(speed=speed)
        state.report(Load(waiting_tokens=told), 0.0)
        mean = speed.others
        assert state.wait_tokens(1, WORD_HALF_LIFE_SECONDS) == pytest.approx(BASE_TOKENS + (told + mean) / 2)
        assert state.wait_tokens(1, 60.0) == pytest.approx(BASE_TOKENS + mean)


def test_one_that_does_not_tell_what_waits_is_taken_by_its_queue_and_the_mean_request():
    state = endpoint()
    state.report(Load(queued=2, engine_waiting=3, waiting_tokens=None), 0.0)
    assert state.told_tokens == 5 * BASE_TOKENS + 2 * RUNNING_TOKENS


def test_a_word_that_never_changes_while_requests_come_is_no_word():
    state = endpoint()
    frozen = Load(waiting_tokens=50_000)
    state.report(frozen, 0.0)
    assert state.wait_tokens(1, 0.0) > 50_000
    state.sent(COST)
    state.report(frozen, 0.1)
    assert state.wait_tokens(1, 0.1) < 5_000


def test_a_stale_report_is_neither_nothing_nor_full():
    state = endpoint()
    state.report(Load(in_flight=80, in_flight_tokens=9000), 0.0)
    assert state.full(1, 1.0)
    assert not state.full(1, STALE_SECONDS + 0.1)


def test_an_endpoint_is_full_by_the_own_count_whatever_it_says():
    state = endpoint(inbound=False)
    state.limit(2, 100)  # nothing queues before an engine without a sidecar
    state.sent(COST)
    assert not state.full(1, 0.0)
    state.sent(COST)
    state.report(Load(), 0.0)
    assert state.full(1, 0.0)
    state.done(COST)
    assert not state.full(1, 0.0)


def test_a_report_counts_with_what_all_routers_may_have_sent_since():
    state = endpoint()
    state.report(Load(in_flight=70), 0.0)
    for _ in range(3):
        state.sent(COST)
    assert not state.full(1, 0.0)
    assert state.full(4, 0.0)


def test_a_figure_that_stands_still_while_we_hold_more_is_not_believed():
    state = endpoint()
    state.report(Load(in_flight_tokens=0), 0.0)
    assert not state.suspect
    state.sent(COST)
    state.report(Load(in_flight_tokens=0), 0.5)
    assert state.suspect
    state.report(Load(in_flight_tokens=COST), 0.7)
    assert not state.suspect


def test_its_word_that_its_engine_is_down_holds_for_a_while_only():
    state = endpoint()
    for word in (Load(engine_up=False), Load(draining=True)):
        state.report(word, 10.0)
        assert state.shut
        assert state.info()["away"]
        assert state.away_until == 10.0 + AWAY_SECONDS
        state.report(Load(), 10.5)
        assert not state.shut


def test_the_snapshots_word_is_not_the_endpoints_to_take_back():
    state = endpoint()
    state.mark(draining=True)
    state.report(Load(), 0.0)
    assert state.draining
    assert state.shut
    state.mark(draining=False)
    assert not state.shut
    state.mark(blocked=True)
    assert state.shut


def test_hard_failures_shut_at_once_and_soft_ones_after_some():
    hard, soft = endpoint(), endpoint()
    hard.failed(0.0, hard=True)
    assert hard.shut
    for n in range(DOWN_AFTER_FAILURES):
        assert not soft.shut, n
        soft.failed(0.0, hard=False)
    assert soft.shut


def test_the_time_down_doubles_up_to_its_limit():
    state = endpoint()
    times = []
    for _ in range(12):
        state.failed(100.0, hard=True)
        times.append(state.down_until - 100.0)
    assert times[:4] == [0.5, 1.0, 2.0, 4.0]
    assert times[-1] == DOWN_MAX_SECONDS
    assert state.penalty == PENALTY_MAX


def test_success_after_being_down_ends_the_penalty_and_starts_slowly():
    state = endpoint()
    for _ in range(3):
        state.failed(0.0, hard=True)
    state.succeeded(10.0)
    assert not state.shut
    assert state.penalty == 1.0
    first = state.factor
    assert first > 5.0
    factors = []
    for step in range(1, 6):
        state.refresh(10.0 + step * SLOW_START_SECONDS / 5)
        factors.append(state.factor)
    assert factors == sorted(factors, reverse=True)
    assert factors[-1] == 1.0


def test_a_penalty_fades_without_another_request():
    state = endpoint()
    state.failed(0.0, hard=False)
    assert state.factor == PENALTY_STEP
    state.refresh(10.0)
    assert state.factor == pytest.approx((1.0 + PENALTY_STEP) / 2.0)
    state.refresh(100.0)
    assert (state.factor, state.penalty) == (1.0, 1.0)


def test_each_success_halves_a_penalty():
    state = endpoint()
    state.failed(0.0, hard=False)
    assert state.penalty == PENALTY_STEP == 4.0
    state.succeeded(0.0)
    assert (state.penalty, state.failures) == (2.0, 0)
    state.succeeded(0.0)
    assert state.penalty == 1.0
    state.succeeded(0.0)
    assert state.factor == 1.0


def test_a_slow_endpoint_is_told_from_its_peers_and_forgiven_in_time():
    speed = ClusterSpeed()
    slow, fast = endpoint(speed=speed), endpoint(speed=speed)
    for n in range(40):
        fast.first_token(True, 0.1, 100, n * 0.1)
        slow.first_token(True, 0.5, 100, n * 0.1)
    assert slow.slowness > 1.5
    assert slow.factor > fast.factor * 1.4
    slow.refresh(200.0)
    assert slow.factor == pytest.approx(1.0)


def test_slowness_fades_between_observations_too():
    speed = ClusterSpeed()
    state = endpoint(speed=speed)
    speed.observe(True, 0.1, 100)
    state.slowness, state.slowness_at = 9.0, 0.0
    for _ in range(200):
        speed.observe(True, 0.1, 100)
    before = state.slowness_now(60.0)
    assert before < 1.2
    state.first_token(True, 0.1, 100, 60.0)
    assert state.slowness <= before


def test_streams_and_whole_replies_have_speeds_of_their_own():
    speed = ClusterSpeed()
    assert speed.observe(True, 0.1, 100) == 1.0
    assert speed.observe(False, 5.0, 100) == 1.0
    assert speed.observe(True, 0.1, 100) == pytest.approx(1.0)
    assert speed.observe(False, 10.0, 100) == pytest.approx(2.0)


def test_a_larger_prompt_may_take_longer():
    speed = ClusterSpeed()
    speed.observe(True, 0.1, 0)
    assert speed.observe(True, 0.2, 256) == pytest.approx(1.0)


def test_a_queue_counts_when_it_lasts_and_teaches_the_limit():
    state = endpoint()
    load = Load(in_flight=11, engine_running=8, engine_waiting=3)
    state.report(load, 0.0)
    assert not state.queues(0.0)
    state.report(load, 0.5)
    assert not state.queues(0.5)
    state.report(load, 2.0)
    assert state.queues(2.0)
    state.report(load, 3.0)
    assert state.max_running == 8
    for _ in range(8):
        state.sent(COST)
    state.report(Load(in_flight=8, engine_running=8, engine_waiting=0), 4.0)
    assert state.queues(4.0), "one more would wait"
    state.report(Load(in_flight=8, engine_running=8, engine_waiting=0), 5.0)
    assert not state.queues(5.0), "it may do more than was thought"


def test_the_picture_is_plain_values():
    state = endpoint()
    state.sent(COST)
    info = state.info()
    assert (info["id"], info["in_flight"], info["in_flight_tokens"], info["down"]) == ("e", 1, COST, False)


def test_who_has_failed_is_probed_only_after_its_peers_have_had_their_turns():
    speed = ClusterSpeed()
    pool = Pool("p", [endpoint(f"e{n}", speed=speed) for n in range(4)], speed)
    bad = pool.targets[0]
    bad.failed(0.0, hard=False)
    bad.refresh(60.0)
    assert bad.shut
    for _ in range(PROBE_TURNS * 3):
        assert eliminate(bad, (), 1, 60.0) is Eliminated.DOWN
        soonest(pool, request(), Chance(1, 60.0, random.Random(1).random))
    assert eliminate(bad, (), 1, 60.0) is None
    bad.failed(60.0, hard=True)
    assert eliminate(bad, (), 1, 120.0) is None, "who could not be reached is tried again at once"
