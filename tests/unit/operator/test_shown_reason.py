"""The reason that a status shows: what changes the number at once, a pin at once, the rest when it has held."""

from __future__ import annotations

from spillway_operator.policies import reasons
from spillway_operator.reconcile.scaled_backend import ShownReason


def test_a_change_and_a_pin_show_at_once():
    shown = ShownReason(reasons.STEADY)
    assert shown.settle(0.0, reasons.FROM_ZERO, changes=True, under_way=True) == reasons.FROM_ZERO
    assert shown.settle(2.0, reasons.PINNED, changes=False, under_way=True) == reasons.PINNED


def test_what_changes_nothing_shows_when_it_has_held_and_nothing_is_under_way():
    shown = ShownReason(reasons.RAISED)
    assert shown.settle(0.0, reasons.STEADY, changes=False, under_way=True) == reasons.RAISED
    for now in range(2, 12, 2):
        assert shown.settle(float(now), reasons.STEADY, changes=False, under_way=False) == reasons.RAISED
    assert shown.settle(12.0, reasons.STEADY, changes=False, under_way=False) == reasons.STEADY


def test_a_pin_that_is_gone_is_not_shown_because_replicas_are_under_way():
    shown = ShownReason(reasons.PINNED)
    for now in range(0, 12, 2):
        shown.settle(float(now), reasons.NO_DATA, changes=False, under_way=True)
    assert shown.shown == reasons.NO_DATA
