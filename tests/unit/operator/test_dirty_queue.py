"""The dirty queue: once each, first come first out, failures later and later."""

from __future__ import annotations

import random

import pytest

from spillway_operator.reconcile.queue import DirtyQueue


def _queue() -> DirtyQueue[str]:
    return DirtyQueue(rng=random.Random(3), base_seconds=0.1, max_seconds=5.0)


def test_marks_coalesce_and_keep_their_order():
    queue = _queue()
    for key in ("b", "a", "b"):
        queue.mark(key)
    assert queue.drain(0.0) == ["b", "a"]
    assert queue.drain(0.0) == []


def test_a_key_that_failed_comes_back_after_its_delay_and_not_before():
    queue = _queue()
    delay = queue.failed("a", 10.0)
    assert 0.075 <= delay <= 0.1
    assert queue.drain(10.0 + delay / 2) == []
    assert queue.due_in(10.0) == pytest.approx(delay)
    assert queue.drain(10.0 + delay) == ["a"]


def test_delays_double_up_to_the_bound():
    queue = _queue()
    delays = [queue.failed("a", 0.0) for _ in range(40)]
    assert delays[1] > delays[0]
    assert delays[2] > 1.5 * delays[1] * 0.75
    assert max(delays) <= 5.0
    assert delays[-1] >= 5.0 * 0.75


def test_success_begins_anew():
    queue = _queue()
    for _ in range(6):
        queue.failed("a", 0.0)
    queue.succeeded("a")
    assert queue.due_in(0.0) is None
    assert queue.failed("a", 0.0) <= 0.1


def test_a_change_brings_a_failed_key_back_at_once():
    queue = _queue()
    queue.failed("a", 0.0)
    queue.mark("a")
    assert queue.due_in(0.0) == 0
    assert queue.drain(0.0) == ["a"]
    assert queue.drain(100.0) == []


def test_a_key_marked_while_it_was_looked_at_is_not_delayed_by_its_failure():
    queue = _queue()
    queue.mark("a")
    queue.drain(0.0)
    queue.mark("a")
    queue.failed("a", 0.0)
    assert queue.drain(0.0) == ["a"]


def test_an_empty_queue_is_never_due():
    assert _queue().due_in(0.0) is None


def test_info_shows_what_waits_and_what_fails():
    queue = _queue()
    queue.mark("a")
    queue.failed("b", 0.0)
    assert queue.info() == {"ready": 1, "delayed": 1, "failing": {"b": 1}}
