"""The excess of a priority, and why a request went on."""

from __future__ import annotations

import pytest

from spillway_sidecar.balancing.conditions import Conditions
from spillway_sidecar.balancing.diversion import Diversion
from spillway_sidecar.balancing.spill import ACTIVE_SECONDS, Spill
from spillway_wire.names import DiversionCause
from spillway_wire.snapshot import BackendRef, Fallback, Route, Rule
from spillway_wire.snapshot import Spill as Declared


def test_what_waits_no_longer_than_allowed_stays():
    spill = Spill(2.0)
    assert all(spill.holds(wait) for wait in (0.0, 1.9, 2.0))
    assert not spill.spilling


def test_it_comes_back_below_the_bound_and_not_at_it():
    spill = Spill(2.0)
    assert [spill.holds(wait) for wait in (2.1, 1.9, 1.7, 1.6, 1.9, 2.0, 2.1)] == [False, False, False, True, True, True, False]


def test_why_is_told_as_it_was_when_it_began_and_for_a_while_after():
    spill = Spill(2.0)
    assert spill.because(100.0) is None
    spill.spilled(3.1, 100.0)
    spill.spilled(5.0, 101.0)
    assert spill.because(101.0 + ACTIVE_SECONDS) == Diversion(DiversionCause.WAIT, 3.1, 2.0)
    assert spill.because(101.1 + ACTIVE_SECONDS) is None
    spill.spilled(4.0, 200.0)
    assert spill.info(200.0)["because"] == "predicted wait 4 s > 2 s"


@pytest.mark.parametrize(
    ("diversion", "note"),
    [
        (Diversion(DiversionCause.WAIT, 3.1, 2.0), "spilled: predicted wait 3.1 s > 2 s"),
        (Diversion(DiversionCause.WAIT, 0.26, 0.25), "spilled: predicted wait 0.26 s > 0.25 s"),
        (Diversion(DiversionCause.ERROR_RATE, 0.2, 0.05), "fell back: error rate 20 % > 5 %"),
        (Diversion(DiversionCause.LATENCY, 0.4, 3.0), "fell back: P95 to first token > 3 s (40 % are slower)"),
    ],
)
def test_a_record_says_why(diversion: Diversion, note: str):
    assert diversion.note() == note


def _route(max_wait: float = 2.0, error_rate: int = 5) -> tuple[Route, Rule]:
    rule = Rule("all", (BackendRef("a"), BackendRef("b", 1)), (), Fallback(error_rate), Declared(max_wait))
    return Route("r", ("m",), (rule,)), rule


def test_what_was_learned_lives_as_long_as_the_bound_is_declared():
    conditions = Conditions()
    conditions.begin()
    fallback, spill = conditions.of(*_route(), 0)
    assert fallback is not None
    assert spill is not None
    spill.spilled(3.0, 10.0)
    assert [key for key, _ in conditions.diversions(10.0)] == [("r", "all", 0)]
    conditions.begin()
    assert conditions.of(*_route(), 0) == (fallback, spill)
    conditions.begin()
    other = conditions.of(*_route(max_wait=3.0), 0)
    assert other[0] is fallback
    assert other[1] is not spill
    conditions.begin()
    conditions.of(*_route(max_wait=3.0, error_rate=6), 0)
    conditions.abandon()
    assert conditions.of(*_route(max_wait=3.0), 0) == other
    conditions.begin()
    assert conditions.info(10.0) == {"fallbacks": {}, "spills": {}}


def test_a_rule_without_conditions_has_none():
    conditions = Conditions()
    conditions.begin()
    rule = Rule("all", (BackendRef("a"), BackendRef("b", 1)))
    assert conditions.of(Route("r", ("m",), (rule,)), rule, 0) == (None, None)
