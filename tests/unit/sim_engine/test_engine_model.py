"""The engine model: continuous batching over time that the test tells it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spillway.sim_engine.model import Engine, EngineSpec, Progress, TooLargeError

SPEC = EngineSpec(
    prefill_tokens_per_second=1000, decode_tokens_per_second=10, half_speed_batch=4, max_running=2, kv_tokens=1000, step_tokens=100
)


def drain(engine: Engine) -> list[Progress]:
    """Every event, step by step."""
    events: list[Progress] = []
    while (due := engine.next_step_at()) is not None:
        events += engine.advance(due)
    return events


def test_a_request_alone_gets_its_first_token_after_prefill_and_then_the_decode_rate():
    engine = Engine(SPEC)
    engine.submit(1, prompt_tokens=50, output_tokens=3, now=10.0)
    assert [(e.at_seconds, e.tokens, e.first, e.finished) for e in drain(engine)] == [
        (pytest.approx(10.05), 1, True, False),
        (pytest.approx(10.15), 1, False, False),
        (pytest.approx(10.25), 1, False, True),
    ]


def test_a_long_prompt_is_prefilled_in_chunks_beside_the_sequences_that_decode():
    engine = Engine(SPEC)
    engine.submit(1, 10, 20, now=0.0)
    engine.advance(0.01)
    engine.submit(2, 250, 1, now=0.02)
    events = drain(engine)
    first_of_2 = next(e.at_seconds for e in events if e.request_id == 2)
    tokens_of_1_meanwhile = sum(e.tokens for e in events if e.request_id == 1 and e.at_seconds <= first_of_2)
    assert tokens_of_1_meanwhile == 4  # a token in the step it waited for, and one in each of 250 / (100 - 1) steps
    assert first_of_2 == pytest.approx(0.01 + 4 * 0.1 + 0.25)


@pytest.mark.parametrize(("batch", "seconds"), [(1, 0.1), (5, 0.2), (9, 0.3)])
def test_each_sequence_slows_as_the_batch_grows_while_together_they_make_more(batch: int, seconds: float):
    assert SPEC.step_seconds(batch, 0) == pytest.approx(seconds)
    assert batch / SPEC.step_seconds(batch, 0) > (batch - 1) / (SPEC.step_seconds(batch - 1, 0) or 1)


def test_a_request_waits_until_prompt_and_output_fit_the_cache_and_holds_back_those_behind_it():
    engine = Engine(SPEC)
    engine.submit(1, 100, 500, now=0.0)
    engine.submit(2, 100, 400, now=0.0)
    engine.submit(3, 1, 1, now=0.0)
    engine.advance(1.0)
    assert (engine.running_ids(), engine.waiting_ids()) == ([1], [2, 3])
    assert engine.kv_cache_ratio == pytest.approx(0.6)


def test_a_request_that_can_never_fit_is_refused():
    with pytest.raises(TooLargeError, match="1001 tokens"):
        Engine(SPEC).submit(1, 1000, 1, now=0.0)


def test_cancelling_frees_slot_and_cache_at_once_for_running_and_waiting_requests():
    engine = Engine(SPEC)
    for number in (1, 2, 3, 4):
        engine.submit(number, 10, 100, now=0.0)
    engine.advance(0.5)
    assert (engine.running_ids(), engine.waiting_ids()) == ([1, 2], [3, 4])
    assert engine.cancel(3, now=0.5)
    assert engine.cancel(1, now=0.5)
    assert (engine.running, engine.kv_tokens_reserved) == (1, 110)
    engine.advance(engine.next_step_at() or math.nan)
    assert (engine.running_ids(), engine.waiting_ids()) == ([2, 4], [])
    assert not engine.cancel(3, now=0.6)


def test_cancelling_the_last_running_request_admits_the_waiting_one_without_waiting_for_the_step():
    engine = Engine(EngineSpec(max_running=1, prefill_tokens_per_second=1.0))
    engine.submit(1, 1000, 1, now=0.0)
    engine.submit(2, 5, 1, now=0.0)
    engine.cancel(1, now=3.0)
    assert engine.next_step_at() == pytest.approx(8.0)
    assert [e.request_id for e in drain(engine)] == [2]


def test_a_slowed_engine_stretches_the_steps_that_follow():
    engine = Engine(SPEC)
    engine.submit(1, 10, 3, now=0.0)
    engine.advance(0.01)
    engine.slowdown = 3.0
    assert [e.at_seconds for e in engine.advance(10.0)] == [pytest.approx(0.11), pytest.approx(0.41)]


def test_a_request_without_output_ends_with_its_prefill():
    engine = Engine(SPEC)
    engine.submit(1, 20, 0, now=0.0)
    assert drain(engine) == [Progress(1, pytest.approx(0.02), 0, first=True, finished=True)]


def test_a_request_that_arrives_later_does_not_join_a_step_of_its_past():
    engine = Engine(SPEC)
    engine.submit(1, 10, 3, now=0.0)
    engine.submit(2, 10, 1, now=5.0)  # nobody has advanced the engine meanwhile
    assert [e.at_seconds for e in engine.advance(9.0) if e.request_id == 2] == [pytest.approx(5.01)]


@pytest.mark.parametrize("field", list(EngineSpec.__dataclass_fields__))
def test_a_figure_that_makes_no_sense_is_refused(field: str):
    with pytest.raises(ValueError, match=field):
        EngineSpec(**{field: 0})


@dataclass(frozen=True)
class Arrival:
    at: float
    prompt: int
    output: int
    cancel_after: float | None


ARRIVALS = st.lists(
    st.builds(
        Arrival,
        at=st.floats(0, 20),
        prompt=st.integers(1, 300),
        output=st.integers(0, 60),
        cancel_after=st.none() | st.floats(0, 10),
    ),
    min_size=1,
    max_size=25,
)
SPECS = st.builds(
    EngineSpec,
    prefill_tokens_per_second=st.floats(100, 10_000),
    decode_tokens_per_second=st.floats(5, 100),
    half_speed_batch=st.integers(1, 32),
    max_running=st.integers(1, 8),
    kv_tokens=st.integers(360, 1500),
    step_tokens=st.integers(1, 256),
)


@settings(max_examples=60)
@given(SPECS, ARRIVALS, st.sampled_from(["step", "change"]))
def test_every_request_gets_its_tokens_in_order_within_the_limits(spec: EngineSpec, arrivals: list[Arrival], pace: str):
    """Conservation, limits, first-come-first-served admission and an end for all, at both paces of advancing."""
    engine = Engine(spec)
    schedule = sorted(enumerate(arrivals), key=lambda item: item[1].at)
    events = [(a.at, 0, number) for number, a in schedule]
    events += [(a.at + a.cancel_after, 1, number) for number, a in schedule if a.cancel_after is not None]
    made: dict[int, int] = {}
    firsts: list[int] = []
    admitted: list[int] = []
    finished: set[int] = set()
    cancelled: set[int] = set()

    def take(progress: list[Progress]) -> None:
        for event in progress:
            assert event.request_id not in finished | cancelled
            assert event.first == (event.request_id not in made)
            if event.first:
                firsts.append(event.request_id)
            made[event.request_id] = made.get(event.request_id, 0) + event.tokens
            if event.finished:
                finished.add(event.request_id)

    def check() -> None:
        running = engine.running_ids()
        needs = [arrivals[number].prompt + arrivals[number].output for number in running]
        assert engine.kv_tokens_reserved == sum(needs) <= spec.kv_tokens
        assert len(running) <= spec.max_running
        admitted.extend(number for number in running if number not in admitted)

    def run_until(now: float) -> None:
        while (due := engine.next_step_at() if pace == "step" else engine.next_change_at()) is not None and due <= now:
            take(engine.advance(due))
            check()
        take(engine.advance(now))

    for at, kind, number in sorted(events):
        run_until(at)
        if kind == 0:
            engine.submit(number, arrivals[number].prompt, arrivals[number].output, at)
        elif engine.cancel(number, at):
            cancelled.add(number)
        check()
    run_until(1e9)

    assert engine.next_step_at() is None
    assert (engine.running, engine.waiting, engine.kv_tokens_reserved) == (0, 0, 0)
    assert finished | cancelled == set(range(len(arrivals)))
    assert all(made[number] == arrivals[number].output for number in finished)
    assert engine.output_tokens_total == sum(made.values())
    assert engine.prompt_tokens_total >= sum(arrivals[number].prompt for number in finished)
    order = [number for number, _ in schedule]
    assert [n for n in admitted if n not in cancelled] == [n for n in order if n in set(admitted) - cancelled]


@settings(max_examples=60)
@given(SPECS, ARRIVALS)
def test_advancing_rarely_gives_the_same_times_as_advancing_at_each_step(spec: EngineSpec, arrivals: list[Arrival]):
    def ends(engine: Engine, *, fine: bool) -> dict[int, tuple[float, float]]:
        for number, arrival in sorted(enumerate(arrivals), key=lambda item: item[1].at):
            if fine:
                while (due := engine.next_step_at()) is not None and due <= arrival.at:
                    collect(engine.advance(due))
            engine.submit(number, arrival.prompt, arrival.output, arrival.at)
        collect(drain(engine) if fine else engine.advance(1e9))
        return {number: (first[number], last[number]) for number in first}

    def collect(progress: list[Progress]) -> None:
        for event in progress:
            if event.first:
                first[event.request_id] = event.at_seconds
            last[event.request_id] = event.at_seconds

    first: dict[int, float] = {}
    last: dict[int, float] = {}
    fine = ends(Engine(spec), fine=True)
    first, last = {}, {}
    coarse = ends(Engine(spec), fine=False)
    assert coarse.keys() == fine.keys()
    for number, times in fine.items():
        assert coarse[number] == pytest.approx(times, abs=1e-6)
