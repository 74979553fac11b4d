"""When an endpoint has as much as it can run, and how that limit is learned."""

from __future__ import annotations

from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import LIMIT_GROWTH_SECONDS, STALE_SECONDS, EndpointState
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
    assert not state.saturated(4, 1.1 + STALE_SECONDS), "an old word neither holds nor releases"


def test_queued_before_the_engine_is_as_good_as_running():
    state = endpoint(8)
    state.report(Load(in_flight=5, queued=3), 0.0)
    assert state.saturated(1, 0.0)


def test_a_full_kv_cache_saturates_while_something_of_ours_runs_there():
    state = endpoint(8)
    state.report(Load(in_flight=1, kv_cache_ratio=0.97), 0.0)
    assert not state.saturated(1, 0.0), "or nothing would ever find out that it is free again"
    state.sent(10)
    assert state.saturated(1, 0.0)
    state.report(Load(in_flight=1, kv_cache_ratio=0.5), 0.1)
    assert not state.saturated(1, 0.1)


def test_a_large_queue_in_the_engine_teaches_its_limit_at_once_and_a_short_one_must_last():
    state = endpoint(256)
    state.report(Load(in_flight=18, engine_running=16, engine_waiting=2), 0.0)
    assert state.max_running == 256
    state.report(Load(in_flight=24, engine_running=16, engine_waiting=8), 0.1)
    assert state.max_running == 16
    assert state.saturated(1, 0.1)


def test_a_limit_grows_while_the_engine_is_at_it_and_nothing_waits():
    state = endpoint(256)
    state.report(Load(in_flight=24, engine_running=16, engine_waiting=8), 0.0)
    now, seen = 0.0, [state.max_running]
    for _ in range(4):
        now += LIMIT_GROWTH_SECONDS / 2
        running = state.max_running
        state.report(Load(in_flight=running, engine_running=running, engine_waiting=0), now)
        now += LIMIT_GROWTH_SECONDS / 2
        state.report(Load(in_flight=running, engine_running=running, engine_waiting=0), now)
        seen.append(state.max_running)
    assert seen == [16, 17, 19, 23, 31]
    state.report(Load(in_flight=31, engine_running=20, engine_waiting=0), now + 10)
    assert state.max_running == 31, "an engine that is not at its limit shows nothing of it"
    state.report(Load(in_flight=31, engine_running=20, engine_waiting=11), now + 11)
    assert state.max_running == 20
