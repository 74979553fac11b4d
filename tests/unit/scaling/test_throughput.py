"""What a replica does is learned where replicas have all they can do, and nowhere else."""

from __future__ import annotations

import random

import pytest

from spillway_operator.scaling.idle import Idle
from spillway_operator.scaling.throughput import Throughput


def run(throughput: Throughput, begin: float, seconds: float, served: float, ready: int, saturated: float) -> float:
    for _ in range(int(seconds / 2)):
        begin += 2.0
        throughput.observe(begin, served, ready, saturated)
    return begin


def test_an_idle_replica_teaches_nothing_but_what_it_has_shown():
    throughput = Throughput()
    run(throughput, 0.0, 600, served=200.0, ready=4, saturated=0.0)
    assert throughput.learned is None
    assert throughput.shown == 50.0


def test_a_saturated_one_does():
    throughput = Throughput()
    now = run(throughput, 0.0, 28, served=8000.0, ready=4, saturated=1.0)
    assert throughput.learned is None, "the window of the traffic was not full of it for long"
    now = run(throughput, now, 6, served=8000.0, ready=4, saturated=1.0)
    assert throughput.learned == 2000.0
    # Other prompts, other figures: within minutes.
    now = run(throughput, now, 300, served=4000.0, ready=4, saturated=1.0)
    assert throughput.learned == pytest.approx(1000.0, rel=0.05)
    # Half of them with room: says nothing. More than it says: it is wrong.
    now = run(throughput, now, 120, served=2000.0, ready=4, saturated=0.5)
    assert throughput.learned == pytest.approx(1000.0, rel=0.05)
    run(throughput, now, 90, served=6000.0, ready=4, saturated=0.0)
    assert throughput.learned == 1500.0


@pytest.mark.parametrize("seed", range(5))
def test_bursts_of_answers_that_end_are_not_what_a_replica_does(seed: int):
    rng = random.Random(seed)
    throughput, now = Throughput(), 0.0
    for _ in range(600):
        now += 2.0
        throughput.observe(now, max(0.0, rng.gauss(4000.0, 1000.0)), 4, 1.0 if 100.0 < now < 400.0 else 0.0)
        if now > 140.0:
            assert throughput.learned == pytest.approx(1000.0, rel=0.2)


def test_replicas_that_have_just_come_or_gone_do_not_skew_it():
    throughput = Throughput(2000.0)
    now = run(throughput, 0.0, 60, served=8000.0, ready=4, saturated=1.0)
    run(throughput, now, 10, served=8000.0, ready=2, saturated=1.0)  # the window is still of four
    assert throughput.learned == 2000.0


def test_nothing_served_or_nobody_there_is_no_sample():
    throughput = Throughput(7.0)
    now = run(throughput, 0.0, 60, served=0.0, ready=4, saturated=1.0)
    run(throughput, now, 60, served=100.0, ready=0, saturated=1.0)
    assert throughput.info() == {"learned": 7.0, "shown": None}


def test_silence_is_only_what_is_known_to_be():
    idle = Idle(0.0)
    idle.observe(10.0, busy=False)
    assert idle.seconds(10.0) == 10.0
    idle.observe(12.0, busy=None)
    idle.observe(20.0, busy=False)
    assert idle.seconds(20.0) == 8.0
    idle.observe(21.0, busy=True)
    assert idle.seconds(21.0) == 0.0
