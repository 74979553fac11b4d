"""Leaving a priority that is worse than the rule allows: on evidence, at once, and back by probes."""

from __future__ import annotations

import random

import pytest

from spillway_sidecar.balancing.fallback import (
    MIN_SAMPLES,
    PROBE_MAX_SECONDS,
    PROBE_SECONDS,
    PROBES_TO_RETURN,
    RETURN_SECONDS,
    Fallback,
)
from spillway_wire.names import DiversionCause


class Course:
    """Requests at a fallback, one after the other, on a clock of the test's own."""

    def __init__(self, fallback: Fallback) -> None:
        self.fallback = fallback
        self.now = 1000.0
        self.count = 0
        self.rng = random.Random(1)

    def ask(self, *, takes: float = 0.01, fails: bool = False) -> bool:
        """One request; whether it passed. It is over when this returns."""
        if not self.fallback.passes(self.now, self.rng.random):
            return False
        self.count += 1
        self.fallback.sent(self.count, self.now)
        self.now += takes
        (self.fallback.failed if fails else self.fallback.answered)(self.count, self.now)
        return True

    def run(self, seconds: float, *, every: float = 0.1, **request: float | bool) -> tuple[int, int]:
        """Requests for a while: how many there were, how many passed."""
        end = self.now + seconds
        asked = passed = 0
        while self.now < end:
            asked += 1
            before = self.now
            passed += self.ask(**request)  # type: ignore[arg-type]
            self.now = max(self.now, before + every)
        return asked, passed

    @property
    def left(self) -> bool:
        """Whether nothing but probes goes there."""
        return self.fallback.because is not None and not self.fallback.returning


def errors(percent: int = 20) -> Course:
    """One that is left by its error rate."""
    return Course(Fallback(percent / 100, None))


def latency(seconds: float = 1.0) -> Course:
    """One that is left by its latency."""
    return Course(Fallback(None, seconds))


def test_a_good_priority_is_not_left():
    course = Course(Fallback(0.05, 1.0))
    asked, passed = course.run(60)
    assert asked == passed > 590
    assert course.fallback.because is None


def test_it_is_left_with_the_sample_that_makes_the_evidence():
    course = errors(20)
    course.run(2.0)
    sent = 0
    while not course.left:
        course.ask(fails=True)
        sent += 1
    assert sent == 6  # 6 of 26 are the first over 20 %
    assert course.fallback.because is not None
    assert course.fallback.because.cause is DiversionCause.ERROR_RATE
    assert course.fallback.because.text() == "error rate 23 % > 20 %"


def test_a_few_failures_are_no_rate():
    course = errors(1)
    for _ in range(2):
        course.ask(fails=True)
    course.run(1.0)
    assert not course.left, "two may be chance"
    course = errors(1)
    for _ in range(MIN_SAMPLES - 1):
        course.ask(fails=True)
    assert not course.left
    course.ask(fails=True)
    assert course.left


def test_what_is_old_is_no_evidence():
    course = errors(20)
    for _ in range(9):
        course.ask(fails=True)
    course.now += 20
    course.run(1.0)
    assert not course.left


def test_one_in_twenty_may_be_slow_and_no_more():
    course = latency(1.0)
    for turn in range(200):
        course.ask(takes=2.0 if turn % 25 == 24 else 0.01)
    assert not course.left
    for turn in range(100):
        course.ask(takes=1.2 if turn % 10 == 9 else 0.01)
    assert course.left
    assert course.fallback.because is not None
    assert course.fallback.because.cause is DiversionCause.LATENCY


def test_who_says_nothing_is_slow_before_it_is_late():
    """An engine that hangs shows within the bound and a sweep, whatever the client's patience is."""
    course = latency(1.0)
    for number in range(MIN_SAMPLES):
        course.fallback.sent(number, course.now + number * 0.01)
    course.fallback.sweep(course.now + 1.0)
    assert not course.left
    course.fallback.sweep(course.now + 1.0 + MIN_SAMPLES * 0.01 + 0.001)
    assert course.left
    assert course.fallback.info()["waiting"] == 0
    for number in range(MIN_SAMPLES):
        course.fallback.answered(number, course.now + 30)  # counted already
    assert course.left


def test_an_answer_that_breaks_off_counts_as_failed_once():
    course = errors(20)
    course.run(2.0)
    for number in range(1, 7):
        course.fallback.failed(number, course.now)  # answered before
    assert course.left


def test_who_leaves_by_himself_says_nothing():
    course = Course(Fallback(0.05, 1.0))
    for number in range(100):
        course.fallback.sent(number, course.now)
        course.fallback.withdrawn(number)
    course.fallback.sweep(course.now + 60)
    assert course.fallback.info() == {
        "state": "in use", "because": None, "samples": 0, "failed": 0, "slow": 0, "waiting": 0, "left_total": 0,
    }  # fmt: skip


def test_probes_are_a_trickle_that_thins_while_they_fail():
    course = errors()
    course.run(3, fails=True)
    assert course.left
    asked, passed = course.run(60, fails=True)
    assert asked > 500
    assert 60 / PROBE_MAX_SECONDS <= passed <= 15
    assert course.left


def test_a_retry_is_no_probe():
    course = errors()
    course.run(3, fails=True)
    assert not any(course.fallback.passes(course.now + n, course.rng.random, retry=True) for n in range(60))


def test_good_probes_bring_it_back_by_and_by():
    course = errors()
    course.run(3, fails=True)
    course.run(30, fails=True)
    since = course.now
    while course.left:
        course.run(0.1, every=0.05)
    probes = course.fallback.info()
    assert probes["state"] == "returning"
    assert course.now - since < PROBE_MAX_SECONDS + PROBES_TO_RETURN * (PROBE_SECONDS + 0.2)
    first, second = course.run(RETURN_SECONDS / 2, every=0.02), course.run(RETURN_SECONDS / 2, every=0.02)
    assert first[1] / first[0] < second[1] / second[0]
    asked, passed = course.run(5)
    assert asked == passed
    assert course.fallback.because is None


def test_one_bad_probe_begins_anew():
    course = Course(Fallback(0.2, 1.0))
    course.run(3, fails=True)
    course.run(30, fails=True)
    assert course.left
    course.now += PROBE_MAX_SECONDS
    for _ in range(PROBES_TO_RETURN - 1):
        assert course.ask()
        course.now += PROBE_SECONDS
    assert course.ask(takes=1.5)
    for _ in range(PROBES_TO_RETURN - 1):
        course.now += 2 * PROBE_SECONDS
        assert course.ask()
    assert course.left


def test_what_is_bad_again_under_a_part_of_the_load_is_left_again():
    course = errors()
    course.run(3, fails=True)
    while course.left:
        course.run(0.5)
    course.run(RETURN_SECONDS, every=0.02, fails=True)
    assert course.left
    assert course.fallback.left_total == 1, "it has not been back"


@pytest.mark.parametrize("fails", [False, True])
def test_attempts_from_before_do_not_count_as_probes(fails: bool):
    course = errors()
    for number in range(50):
        course.fallback.sent(-1 - number, course.now)
    course.run(3, fails=True)
    assert course.left
    for number in range(50):
        (course.fallback.failed if fails else course.fallback.answered)(-1 - number, course.now)
    assert course.left
