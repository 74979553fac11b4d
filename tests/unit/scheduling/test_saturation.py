"""When an endpoint has as much as it can run, and how that limit is learned."""

from __future__ import annotations

import pytest

from spillway_sidecar.scheduling.running import LEAST, SAMPLE_SECONDS, RunningLimit
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import LONE_WORD_SECONDS, WORD_SECONDS, EndpointState
from spillway_wire.loads import Load


def endpoint(max_concurrency: int = 8, *, inbound: bool = True) -> EndpointState:
    """A fresh one."""
    state = EndpointState("e", inbound, ClusterSpeed())
    state.limit(max_concurrency, 16)
    return state


def test_the_own_count_saturates_whatever_the_endpoint_says():
    state = endpoint(2)
    state.sent(10)
    assert not state.saturated(1, 0.0)
    state.sent(10)
    state.report(Load(in_flight=0), 0.0)
    assert state.saturated(1, 0.0)
    state.done(10)
    assert not state.saturated(1, 0.0)


def test_what_others_sent_counts_by_its_word_and_by_what_has_happened_since():
    state = endpoint(8)
    state.report(Load(in_flight=7), 0.0)
    assert not state.saturated(1, 0.0)
    state.sent(10)
    assert state.saturated(1, 0.0), "seven and the one sent since"
    state.done(10)
    assert not state.saturated(1, 0.0)
    state.report(Load(in_flight=4), 1.0)
    state.sent(10)
    assert state.saturated(4, 1.0), "each of four routers may have sent one"
    assert not state.saturated(4, 1.1 + WORD_SECONDS), "an old word neither holds nor releases"


def test_room_is_what_is_left_to_saturation():
    state = endpoint(8)
    for taken in range(9):
        assert state.room(1, 0.0) == 8 - taken
        assert state.saturated(1, 0.0) is (taken == 8)
        state.sent(10)
    state = endpoint(8)
    state.report(Load(in_flight=5), 0.0)
    assert (state.room(1, 0.0), state.room(1, 10.0)) == (3, 8)
    state.sent(10)
    assert (state.room(1, 0.0), state.room(2, 0.0)) == (2, 1), "each of two routers may have sent one"


def test_queued_before_the_engine_is_as_good_as_running():
    state = endpoint(8)
    state.report(Load(in_flight=5, queued=3), 0.0)
    assert state.saturated(1, 0.0)


def test_a_full_kv_cache_saturates():
    state = endpoint(8)
    state.sent(10)
    state.report(Load(in_flight=1, in_flight_tokens=10, kv_cache_ratio=0.97), 0.0)
    assert state.saturated(1, 0.0)
    state.report(Load(in_flight=1, in_flight_tokens=10, kv_cache_ratio=0.5), 0.1)
    assert not state.saturated(1, 0.1)


def test_a_word_that_nothing_of_ours_will_renew_holds_for_a_moment_only():
    state = endpoint(8)
    state.report(Load(in_flight=8, kv_cache_ratio=0.97), 0.0)
    assert state.saturated(1, LONE_WORD_SECONDS)
    assert not state.saturated(1, LONE_WORD_SECONDS + 0.01), "or nothing would ever find out that there is room again"
    state.sent(10)
    assert state.saturated(1, LONE_WORD_SECONDS + 0.01)


def samples(limit: RunningLimit, now: float, *seen: tuple[int, int]) -> float:
    """So many samples of running and waiting requests, each second; returns the time after."""
    for running, queue in seen:
        limit.sample(running, queue, now)
        now += SAMPLE_SECONDS
    return now


def test_a_limit_is_learned_from_a_queue_that_stays_beside_a_number_that_stands_still():
    limit = RunningLimit(256)
    now = samples(limit, 0.0, (64, 9), (64, 12))
    assert limit.limit == 256
    samples(limit, now, (63, 9))
    assert limit.limit == 64


def test_a_large_queue_is_believed_sooner():
    limit = RunningLimit(256)
    samples(limit, 0.0, (16, 40), (16, 80))
    assert limit.limit == 16


@pytest.mark.parametrize(
    "seen",
    [
        [(30, 2), (30, 1), (30, 2), (30, 2)],  # taken in between two steps
        [(20, 9), (30, 9), (40, 9), (50, 9)],  # it goes on taking more
        [(30, 9), (30, 9), (30, 0), (30, 9), (30, 9)],  # no queue that lasts
        [(0, 9), (0, 9), (0, 9)],  # it runs nothing: not for want of room
    ],
)
def test_what_only_looks_like_a_limit_teaches_none(seen: list[tuple[int, int]]):
    limit = RunningLimit(256)
    samples(limit, 0.0, *seen)
    assert limit.limit == 256


def test_reports_that_repeat_a_sample_are_one():
    limit = RunningLimit(256)
    for turn in range(100):
        limit.sample(1, 3, turn * 0.001)
    assert limit.limit == 256
    samples(limit, 1.1, (1, 3), (1, 3))
    assert limit.limit == LEAST, "whatever it says, it is not held back to less"


def test_a_limit_grows_while_there_is_no_queue():
    limit = RunningLimit(64)
    now = samples(limit, 0.0, (16, 40), (16, 80))
    seen = []
    for _ in range(10):
        now = samples(limit, now, (limit.limit - 1, 1))
        seen.append(limit.limit)
    assert seen == [16, 17, 17, 19, 19, 23, 23, 31, 31, 47]
    now = samples(limit, now, (20, 27), (20, 27))
    assert limit.limit == 20
    limit.bound(10)
    assert limit.limit == 10
    limit.bound(40)
    assert limit.limit == 40, "what was declared was not learned"
