"""Sums and quantiles: unknown stays unknown."""

from __future__ import annotations

import pytest

from spillway_operator.loads.figures import BackendLoad, EndpointLoad, runs_at_once, sum_loads, ttft_quantile
from spillway_wire.loads import TTFT_BUCKETS_SECONDS, Load


def _fresh(load: Load) -> EndpointLoad:
    return EndpointLoad(load=load, age_seconds=0.1, stale=False)


def _counts(**at: int) -> list[int]:
    counts = [0] * (len(TTFT_BUCKETS_SECONDS) + 1)
    for index, count in at.items():
        counts[int(index[1:])] = count
    return counts


def test_a_sum_over_nothing_is_unknown_and_not_zero_where_it_may_be_unknown():
    load = sum_loads([None, None])
    assert load == BackendLoad(total=2)
    assert load.gpu_ratio is None
    assert load.tokens_per_second is None


def test_stale_endpoints_count_in_the_total_only():
    stale = EndpointLoad(load=Load(in_flight=50, queued=9, max_concurrency=64), age_seconds=9.0, stale=True)
    load = sum_loads([stale, _fresh(Load(in_flight=2, queued=1, max_concurrency=64))])
    assert (load.total, load.known, load.in_flight, load.queued, load.capacity) == (2, 1, 2, 1, 64)


def test_what_an_engine_runs_at_once_shows_while_requests_wait_in_it():
    queue = Load(engine_running=16, engine_waiting=9)
    assert runs_at_once(None, queue, queue) == 16
    assert runs_at_once(None, Load(engine_running=16), queue) is None, "one sample may stand between two steps"
    assert runs_at_once(None, queue, Load(engine_running=16, engine_waiting=3)) is None
    assert runs_at_once(16, queue, Load(engine_running=10)) == 16
    assert runs_at_once(16, queue, Load(engine_running=1, engine_waiting=5)) == 14, "it is being filled again"
    assert runs_at_once(16, queue, Load(engine_running=17)) is None
    assert runs_at_once(None, queue, Load(engine_waiting=9)) is None


def test_capacity_is_what_engines_have_shown_where_that_is_less_than_declared():
    load = Load(in_flight=20, max_concurrency=256)
    known, unknown = EndpointLoad(load, 0.1, stale=False, runs=16), EndpointLoad(load, 0.1, stale=False)
    assert sum_loads([known, unknown]).capacity == 16 + 256


def test_queue_depth_is_what_waits_before_and_in_the_engine():
    load = sum_loads([_fresh(Load(in_flight=10, queued=3, engine_waiting=4, engine_running=6))])
    assert load.queue_depth == 7
    assert load.running == 6


def test_an_engine_that_does_not_say_what_runs_runs_what_is_in_flight():
    assert sum_loads([_fresh(Load(in_flight=5))]).running == 5


def test_ratios_are_means_over_those_that_say_and_rates_are_sums():
    load = sum_loads(
        [
            _fresh(Load(gpu_ratio=0.5, kv_cache_ratio=0.2, tokens_per_second=100.0)),
            _fresh(Load(gpu_ratio=1.0, tokens_per_second=50.0)),
            _fresh(Load()),
        ]
    )
    assert load.gpu_ratio == pytest.approx(0.75)
    assert load.kv_cache_ratio == pytest.approx(0.2)
    assert load.tokens_per_second == pytest.approx(150.0)


@pytest.mark.parametrize("load", [Load(max_concurrency=64, engine_up=False), Load(max_concurrency=64, draining=True)])
def test_what_takes_no_requests_adds_no_capacity(load: Load):
    assert sum_loads([_fresh(load), _fresh(Load(max_concurrency=8))]).capacity == 8


def test_no_samples_have_no_quantile():
    assert ttft_quantile([0] * 25, 0.95) is None
    assert ttft_quantile([], 0.95) is None


def test_a_quantile_is_linear_inside_its_bucket():
    # All 100 samples in (0.1, 0.15]: the 95th of them is 95 % of the way.
    assert ttft_quantile(_counts(b7=100), 0.95) == pytest.approx(0.1 + 0.05 * 0.95)


def test_a_quantile_lies_in_the_bucket_that_holds_its_rank():
    value = ttft_quantile(_counts(b0=90, b13=10), 0.95)
    assert value is not None
    assert 0.75 < value <= 1.0


def test_beyond_the_last_bound_the_answer_is_that_bound():
    assert ttft_quantile(_counts(b24=3), 0.5) == TTFT_BUCKETS_SECONDS[-1]
