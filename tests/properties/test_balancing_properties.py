"""What holds of spill and fallback whatever the course of things."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.balancing.evidence import WINDOW_SECONDS, Evidence
from spillway_sidecar.balancing.fallback import Fallback
from spillway_sidecar.balancing.spill import RETURN_SHARE, Spill
from spillway_sidecar.scheduling.wait import Turn

steps = st.lists(st.tuples(st.floats(0, 3), st.booleans(), st.booleans()), max_size=80)


@given(st.lists(st.tuples(st.floats(0, 4), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3)), max_size=60))
def test_evidence_is_the_sum_of_what_is_young_enough(entries: list[tuple[float, int, int, int]]):
    evidence = Evidence()
    now, kept = 50.0, []
    for wait, samples, failed, slow in entries:
        now += wait
        evidence.add(now, samples=samples, failed=failed, slow=slow)
        kept.append((now, samples, failed, slow))
    slot = WINDOW_SECONDS / 20
    young = [entry for entry in kept if int(entry[0] / slot) > int(now / slot) - 20]
    assert (evidence.samples, evidence.failed, evidence.slow) == tuple(sum(entry[i] for entry in young) for i in (1, 2, 3))
    evidence.forget(now + WINDOW_SECONDS + slot)
    assert (evidence.samples, evidence.failed, evidence.slow) == (0, 0, 0)


@given(steps, st.integers(0, 99))
def test_good_answers_alone_never_leave_and_always_bring_back(course: list[tuple[float, bool, bool]], seed: int):
    fallback = Fallback(0.2, 1.0)
    rng = random.Random(seed)
    now = 10.0
    for number, (wait, fails, slow) in enumerate(course):
        now += wait
        if fallback.passes(now, rng.random):
            fallback.sent(number, now)
            if fails:
                fallback.failed(number, now)
            elif slow:
                fallback.sweep(now + 2.0)
    for number in range(2000):
        now += 0.05
        if fallback.passes(now, rng.random):
            fallback.sent(("good", number), now)
            fallback.answered(("good", number), now + 0.01)
    assert fallback.because is None
    assert all(fallback.passes(now, rng.random) for _ in range(10))


@given(steps)
def test_no_attempt_is_kept_for_ever(course: list[tuple[float, bool, bool]]):
    fallback = Fallback(0.05, 1.0)
    now = 10.0
    for number, (wait, fails, leaves) in enumerate(course):
        now += wait
        fallback.sent(number, now)
        if leaves:
            fallback.withdrawn(number)
        elif fails:
            fallback.failed(number, now)
    fallback.sweep(now + 1.1)
    assert fallback.info()["waiting"] == 0


@given(st.floats(0.01, 60), st.lists(st.floats(0, 120), max_size=50))
def test_a_spill_holds_all_below_its_band_and_none_above_it(limit: float, waits: list[float]):
    spill = Spill(limit)
    for wait in waits:
        held = spill.holds(wait)
        if wait > limit:
            assert not held
        elif wait <= RETURN_SHARE * limit:
            assert held


@given(st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 2), st.sampled_from(["served", "left", "stays"])), max_size=60))
def test_a_wait_is_finite_and_never_negative_and_an_empty_queue_has_none(course: list[tuple[int, float, str]]):
    turn = Turn()
    now = 0.0
    staying = []
    for tokens, wait, end in course:
        turn.enter(tokens, now)
        now += wait
        if end == "served":
            turn.served(tokens, now)
        elif end == "left":
            turn.left(tokens)
        else:
            staying.append(tokens)
        assert 0.0 <= turn.seconds(now) < 1e6
    for tokens in staying:
        turn.left(tokens)
    assert (turn.waiting, turn.waiting_work, turn.seconds(now + 5)) == (0, 0, 0.0)


@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.001, 1))
def test_a_longer_queue_waits_longer(shorter: int, more: int, interval: float):
    waits = []
    for length in (shorter, shorter + more):
        turn = Turn()
        now = 0.0
        turn.enter(100, now)
        for _ in range(40):
            now += interval
            turn.enter(100, now)
            turn.served(100, now)
        for _ in range(length):
            turn.enter(100, now)
        waits.append(turn.seconds(now))
    assert waits[0] < waits[1]
