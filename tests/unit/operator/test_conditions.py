"""Settling decisions on what stands; transition times move only with the status."""

from __future__ import annotations

from datetime import timedelta

from tests.fakes.operator_core import MOMENT

from spillway_operator.policies.conditions import MAX_MESSAGE_CHARACTERS, Decision, Verdict, is_true, names, settle

LATER = MOMENT + timedelta(minutes=1)
GOOD = Decision("Ready", Verdict.TRUE, "EndpointsReady", "3 of 3")


def test_a_first_condition_begins_at_that_moment():
    (condition,) = settle((), [GOOD], generation=2, now=MOMENT)
    assert (condition.type, condition.status, condition.reason) == ("Ready", "True", "EndpointsReady")
    assert condition.observed_generation == 2
    assert condition.last_transition_time == MOMENT


def test_the_same_decision_gives_the_very_same_condition():
    before = settle((), [GOOD], generation=2, now=MOMENT)
    assert settle(before, [GOOD], generation=2, now=LATER)[0] is before[0]


def test_another_message_reason_or_generation_keeps_the_transition_time():
    before = settle((), [GOOD], generation=2, now=MOMENT)
    (after,) = settle(before, [Decision("Ready", Verdict.TRUE, "Other", "2 of 3")], generation=3, now=LATER)
    assert (after.reason, after.message, after.observed_generation) == ("Other", "2 of 3", 3)
    assert after.last_transition_time == MOMENT


def test_another_status_moves_the_transition_time():
    before = settle((), [GOOD], generation=2, now=MOMENT)
    (after,) = settle(before, [Decision("Ready", Verdict.UNKNOWN, "Other")], generation=2, now=LATER)
    assert after.last_transition_time == LATER


def test_types_that_nobody_decides_on_are_dropped_and_the_order_is_that_of_decisions():
    before = settle((), [GOOD, Decision("Old", Verdict.TRUE, "X")], generation=1, now=MOMENT)
    after = settle(before, [Decision("New", Verdict.FALSE, "Y"), GOOD], generation=1, now=LATER)
    assert [condition.type for condition in after] == ["New", "Ready"]


def test_messages_are_bounded():
    (condition,) = settle((), [Decision("Ready", Verdict.FALSE, "X", "a" * 5000)], generation=1, now=MOMENT)
    assert len(condition.message) == MAX_MESSAGE_CHARACTERS
    assert condition.message.endswith("...")


def test_names_shows_a_few_and_counts_the_rest():
    assert names(["a", "b"]) == "a, b"
    assert names("abcdefg") == "a, b, c, d, e and 2 more"


def test_is_true_needs_the_condition_to_stand():
    conditions = settle((), [GOOD, Decision("Saturated", Verdict.FALSE, "X")], generation=1, now=MOMENT)
    assert is_true(conditions, "Ready")
    assert not is_true(conditions, "Saturated")
    assert not is_true(conditions, "Missing")
