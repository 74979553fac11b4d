"""The modelled engine: nothing is lost, nothing is made twice, and its figures are those of an engine that counts every step."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.sim_engine.model import Engine as SteppedEngine
from spillway.sim_engine.model import EngineSpec as SteppedSpec
from spillway.simulate.engine import NEVER, Engine, EngineSpec
from spillway.simulate.measure import percentile
from spillway.simulate.traffic import Arrival, Request

SPEC = EngineSpec(prefill_tokens_per_second=1000.0, decode_tokens_per_second=10.0, half_speed_batch=10, kv_tokens=10_000)


def drive(engine: Engine, arrivals: list[Arrival]) -> list[Request]:
    """Runs all to their end and checks at each event what must always hold."""
    requests = [Request(index, arrival) for index, arrival in enumerate(arrivals)]
    pending = list(requests)
    events = 0
    while pending or engine.next_at < NEVER:
        events += 1
        assert events < 100 * (len(requests) + 1), "it goes round in circles"
        if pending and pending[0].arrived_at <= engine.next_at:
            assert engine.submit(pending[0], pending[0].arrived_at)
            pending.pop(0)
        else:
            now = engine.next_at
            first, ended = engine.run(now)
            if first is not None:
                assert first.first_at < 0.0
                first.first_at = now
            if ended is not None:
                assert ended.ended_at < 0.0
                ended.ended_at = now
        assert 0.0 <= engine.kv_used <= engine.spec.kv_tokens + 1e-6
        assert engine.running <= engine.spec.max_running + 1  # and the prompt under way
        assert (engine.next_at < NEVER) == (engine.in_flight > 0), "it idles with work, or works without any"
    return requests


def test_a_request_alone_takes_its_prompt_and_its_tokens():
    (request,) = drive(Engine(0, SPEC), [Arrival(5.0, 500, 11)])
    assert request.first_at == pytest.approx(5.5)
    assert request.ended_at == pytest.approx(6.5)


def test_half_the_speed_takes_twice_as_long():
    (request,) = drive(Engine(0, SPEC, 0.5), [Arrival(0.0, 500, 11)])
    assert (request.first_at, request.ended_at) == (pytest.approx(1.0), pytest.approx(3.0))


def test_prompts_are_read_one_after_the_other():
    first, second = drive(Engine(0, SPEC), [Arrival(0.0, 1000, 1), Arrival(0.0, 1000, 1)])
    assert (first.first_at, second.first_at) == (pytest.approx(1.0), pytest.approx(2.0))


def test_what_decodes_slows_what_is_read_and_the_other_way_round():
    spec = EngineSpec(prefill_tokens_per_second=1000.0, decode_tokens_per_second=10.0, half_speed_batch=10, step_tokens=101)
    long, late = drive(Engine(0, spec), [Arrival(0.0, 100, 21), Arrival(0.1, 1000, 1)])
    # A step reads 100 tokens in 0.1 s and makes one token in 0.1 s more.
    assert late.first_at - 0.1 == pytest.approx(2.0)
    # Ten of the twenty tokens took twice as long.
    assert long.ended_at == pytest.approx(0.1 + 10 * 0.2 + 10 * 0.1)


def test_speed_changes_from_the_moment_on():
    engine = Engine(0, SPEC)
    request = Request(0, Arrival(0.0, 1000, 1))
    engine.submit(request, 0.0)
    engine.set_speed(0.1, 0.5)
    assert engine.next_at == pytest.approx(0.5 + 5.0)


def test_a_prefix_is_read_once_while_it_is_kept():
    engine = Engine(0, SPEC)
    arrivals = [Arrival(0.0, 1000, 1, "p", 900), Arrival(5.0, 1000, 1, "p", 900), Arrival(10.0, 1000, 1, "q", 900)]
    first, second, other = drive(engine, arrivals)
    assert [request.hit for request in (first, second, other)] == [False, True, False]
    assert second.first_at - second.arrived_at == pytest.approx(0.1)
    assert (engine.prompt_tokens, engine.hit_tokens) == (3000, 900)


def test_the_oldest_prefix_gives_way_to_what_comes():
    engine = Engine(0, EngineSpec(kv_tokens=3000))
    drive(engine, [Arrival(0.0, 1000, 1, "old", 900), Arrival(10.0, 1000, 1, "young", 900), Arrival(20.0, 1500, 1)])
    assert not engine.holds("old")
    assert engine.holds("young")


def test_who_cannot_fit_is_refused():
    assert not Engine(0, SPEC).submit(Request(0, Arrival(0.0, 9_000, 2_000)), 0.0)


def test_sequences_that_outgrow_the_cache_are_preempted_and_still_end():
    engine = Engine(0, EngineSpec(prefill_tokens_per_second=10_000.0, kv_tokens=1000))
    requests = drive(engine, [Arrival(0.0, 200, 600), Arrival(0.0, 200, 600)])
    assert engine.preempted
    assert all(request.ended_at > 0.0 for request in requests)
    assert engine.finished == 2


def test_an_idle_engine_promises_the_time_that_it_takes():
    engine = Engine(0, SPEC)
    request = Request(0, Arrival(0.0, 500, 5))
    promised = engine.seconds_to_first_token(request, 0.0)
    engine.submit(request, 0.0)
    assert engine.next_at == pytest.approx(promised)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.floats(0, 20), st.integers(1, 1500), st.integers(1, 400), st.sampled_from(["", "a", "b", "c"])),
        min_size=1, max_size=40,
    ),
    st.sampled_from([2_000, 5_000, 100_000]),
    st.sampled_from([1, 4, 64]),
)  # fmt: skip
def test_every_request_ends_once_and_leaves_nothing(rows: list[tuple[float, int, int, str]], kv_tokens: int, max_running: int):
    shared = {"": 0, "a": 50, "b": 300, "c": 700}
    arrivals = sorted(Arrival(at, size + shared[prefix], out, prefix, shared[prefix]) for at, size, out, prefix in rows)
    arrivals = [arrival for arrival in arrivals if arrival.input_tokens + arrival.output_tokens <= kv_tokens]
    engine = Engine(0, EngineSpec(prefill_tokens_per_second=5000.0, kv_tokens=kv_tokens, max_running=max_running))
    requests = drive(engine, arrivals)
    assert all(r.arrived_at < r.first_at <= r.ended_at for r in requests)
    assert engine.finished == len(requests)
    assert (engine.in_flight, engine.in_flight_tokens, engine.waiting_tokens) == (0, 0, 0)
    assert engine.kv_used == pytest.approx(0.0, abs=1e-6)
    # Work is conserved: each token takes its time, and nothing else does.
    busy = (engine.prompt_tokens - engine.hit_tokens) / 5000.0
    if not engine.preempted and arrivals:
        alone = busy + sum(r.output_tokens - 1 for r in requests) / 50.0
        assert busy - 1e-6 <= max(r.ended_at for r in requests) - arrivals[0].at_seconds
        assert max(r.ended_at for r in requests) - arrivals[0].at_seconds <= 20.0 + alone + 1e-3 * len(requests)


def test_the_fluid_agrees_with_an_engine_that_counts_every_step():
    rng = random.Random(7)
    at, arrivals = 0.0, []
    for _ in range(400):
        at += rng.expovariate(3.0)
        arrivals.append(Arrival(at, max(1, round(rng.lognormvariate(6.2, 1.0))), max(1, round(rng.lognormvariate(5.0, 0.8)))))
    requests = drive(Engine(0, EngineSpec(kv_tokens=1_000_000)), arrivals)
    stepped = SteppedEngine(SteppedSpec(kv_tokens=1_000_000))
    first: dict[int, float] = {}
    ended: dict[int, float] = {}
    for index, arrival in enumerate(arrivals):
        stepped.submit(index, arrival.input_tokens, arrival.output_tokens, arrival.at_seconds)
    for progress in stepped.advance(1e9):
        if progress.first:
            first[progress.request_id] = progress.at_seconds
        if progress.finished:
            ended[progress.request_id] = progress.at_seconds

    fluid_ttft = sorted(r.first_at - r.arrived_at for r in requests)
    stepped_ttft = sorted(first[r.id] - r.arrived_at for r in requests)
    # A step under way is waited for, and a first token comes at the end of one: up to two steps that the fluid does not have.
    gaps = [late - soon for soon, late in zip(fluid_ttft, stepped_ttft, strict=True)]
    assert 0.0 <= sum(gaps) / len(gaps) < 2 * EngineSpec().step_seconds(40)
    assert percentile(fluid_ttft, 0.99) == pytest.approx(percentile(stepped_ttft, 0.99), rel=0.15)
    e2e = sum(r.ended_at - r.arrived_at for r in requests)
    assert e2e == pytest.approx(sum(ended[r.id] - r.arrived_at for r in requests), rel=0.1)
