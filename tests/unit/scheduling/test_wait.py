"""How long a request would wait, learned from those before it."""

from __future__ import annotations

import random

import pytest

from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_sidecar.scheduling.wait import Turn
from spillway_wire.loads import Load


def at_work(turn: Turn, waiting: int, interval: float, count: int = 200, tokens: int = 100, start: float = 0.0) -> float:
    """A server that serves one each `interval` while `waiting` wait; the time after it."""
    now = start
    for _ in range(waiting):
        turn.enter(tokens, now)
    for _ in range(count):
        now += interval
        turn.served(tokens, now)
        turn.enter(tokens, now)
    return now


def test_nothing_is_known_of_one_that_has_not_been_asked():
    turn = Turn()
    assert turn.seconds(0.0) == 0.0
    turn.enter(100, 0.0)
    assert turn.seconds(5.0) == 0.0
    assert turn.info()["work_per_second"] is None


@pytest.mark.parametrize(("waiting", "interval"), [(4, 0.5), (25, 0.1), (100, 0.02)])
def test_a_queue_takes_as_long_as_its_length_times_the_interval_and_a_margin(waiting: int, interval: float):
    turn = Turn()
    now = at_work(turn, waiting, interval)
    plain = waiting * interval
    assert plain <= turn.seconds(now) <= plain * (1 + 2.1 / waiting**0.5)


def test_light_traffic_is_no_slow_server():
    """One request a second, each served in 20 ms: a second one would wait some 20 ms, not a second."""
    turn = Turn()
    now = 0.0
    for _ in range(50):
        now += 1.0
        turn.enter(100, now)
        turn.served(100, now + 0.02)
    assert turn.seconds(now + 1) == 0.0
    turn.enter(100, now + 1)
    assert 0.0 < turn.seconds(now + 1) < 0.1


def test_work_counts_and_not_requests():
    short, long = Turn(), Turn()
    for turn in (short, long):
        at_work(turn, 10, 0.1, tokens=1000)
    now = at_work(short, 0, 0.0, count=0, start=20.0)
    short.enter(100, now)
    long.enter(8000, now)
    assert long.seconds(now) > 1.5 * short.seconds(now)


def test_it_follows_a_server_that_becomes_slow():
    turn = Turn()
    now = at_work(turn, 8, 0.02)
    before = turn.seconds(now)
    now = at_work(turn, 0, 0.2, count=32, start=now)
    assert turn.seconds(now) > 8 * before


def test_a_standstill_counts_before_the_next_first_token():
    turn = Turn()
    now = at_work(turn, 8, 0.02)
    assert turn.seconds(now + 5.0) > 10 * turn.seconds(now)


def test_first_tokens_in_bursts_are_a_rate_all_the_same():
    turn = Turn()
    now, rng = 0.0, random.Random(1)
    for _ in range(16):
        turn.enter(100, now)
    for _ in range(60):
        now += 0.8
        for _ in range(8):
            turn.served(100, now)
            turn.enter(100, now)
        now += rng.random() * 1e-3
    assert 1.0 < turn.seconds(now) < 4.0  # 16 that leave at 10 a second, and the margin


def test_of_replies_that_do_not_stream_the_queue_is_as_long_as_it_is_told():
    turn = Turn()
    assert turn.seconds(0.0, queue=16) == 0.0, "nobody has ended yet"
    for number in range(40):
        turn.ended(number * 0.25, queue=16)
    assert 4.0 <= turn.seconds(10.0, queue=16) <= 6.1
    assert turn.seconds(10.0, queue=0) == 0.0
    turn.ended(11.0, queue=0)
    turn.ended(500.0, queue=3)
    turn.ended(500.25, queue=3)
    assert turn.seconds(501.0, queue=16) < 6.1, "time without a queue is not counted"


def test_a_queue_that_is_told_counts_when_it_lasts():
    state = EndpointState("e", True, ClusterSpeed())
    assert state.predicted_wait_seconds(0.0) == 0.0, "no rule asks for it"
    state.turn = Turn()
    for number in range(12):
        now = number * 0.5
        state.report(Load(in_flight=16, engine_running=16, engine_waiting=8), now)
        state.turn.ended(now, state.queue_now(now))
        if number < 3:
            assert state.queue_now(now) == 0
    assert state.queue_now(6.0) == 8
    state.sent(100)
    state.sent(100)
    state.done(100)
    assert state.queue_now(6.0) == 9
    assert state.predicted_wait_seconds(6.0) == pytest.approx(0.5 * (9 + 6.0))
    assert state.queue_now(10.0) == 0, "the word is old"


def test_those_that_leave_unserved_leave_nothing_behind():
    turn = Turn()
    at_work(turn, 0, 0.1, count=0)
    for number in range(10):
        turn.enter(100 * number, 0.0)
    for number in range(10):
        turn.left(100 * number)
    assert (turn.waiting, turn.waiting_work, turn.seconds(9.0)) == (0, 0, 0.0)
