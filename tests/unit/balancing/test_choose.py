"""Where a request goes when a rule declares conditions for leaving a priority."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from spillway_sidecar.balancing.choose import choose
from spillway_sidecar.balancing.conditions import Conditions
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import CompiledRule, compile_table
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_sidecar.scheduling.wait import Turn
from spillway_wire.names import DiversionCause, RequestType
from spillway_wire.snapshot import BackendRef, Fallback, Route, Rule, Spill

REQUEST = Facts(RequestType.CHAT, "m", True, 100)


@dataclass
class Fleet:
    """One rule over pools; the wait at each endpoint is what the test says."""

    rule: Rule
    sizes: dict[str, int] = field(default_factory=lambda: {"a": 2, "b": 1})
    routers: int = 1
    now: float = 100.0
    random: Any = field(default_factory=lambda: random.Random(3).random)

    def __post_init__(self) -> None:
        speed = ClusterSpeed()
        self.pools = {
            name: Pool(name, [EndpointState(f"{name}{n}", True, speed) for n in range(count)], speed)
            for name, count in self.sizes.items()
        }
        for pool in self.pools.values():
            for target in pool.targets:
                target.limit(8, 0)
        self.conditions = Conditions()
        self.conditions.begin()
        route = Route("r", ("m",), (self.rule,))
        table = compile_table("1", [route], {}, lambda name: (self.pools[name], "m", tuple(RequestType)), self.conditions.of)
        self.compiled: CompiledRule[Pool[EndpointState]] = table.routes["m"].rules[0]

    def waits(self, **seconds: float | tuple[float, ...]) -> None:
        """Sets the predicted wait of a pool's endpoints."""
        for name, given in seconds.items():
            targets = self.pools[name].targets
            for target, wait in zip(targets, given if isinstance(given, tuple) else (given,) * len(targets), strict=True):
                target.turn = _Still(wait)

    def choose(self, tried: tuple[EndpointState, ...] = ()) -> tuple[str, DiversionCause | None] | None:
        """The endpoint, and why it is not of the first priority."""
        choice = choose(self.compiled, REQUEST, self, tried)
        if choice is None:
            return None
        _, target, _, diversion = choice
        return target.id, diversion.cause if diversion is not None else None

    def fill(self, *names: str) -> None:
        """Leaves no room there."""
        for name in names:
            for target in self.pools[name].targets:
                for _ in range(8):
                    target.sent(1)

    @property
    def fallback(self) -> Any:
        return self.conditions.fallbacks["r", "x", 0]

    def spoil(self) -> None:
        """Makes priority 0 too bad."""
        for number in range(40):
            self.fallback.sent(number, self.now - 1.0)
            self.fallback.failed(number, self.now)


class _Still(Turn):
    """A wait that stands."""

    def __init__(self, wait: float) -> None:
        super().__init__()
        self._wait = wait

    def seconds(self, now: float, queue: int = 0) -> float:
        return self._wait


def refs(*names: str) -> tuple[BackendRef, ...]:
    """One backend a priority."""
    return tuple(BackendRef(name, priority) for priority, name in enumerate(names))


SPILLS = Rule("x", refs("a", "b"), spill=Spill(2.0))
FALLS = Rule("x", refs("a", "b"), fallback=Fallback(20))


def test_the_first_priority_takes_what_it_can_serve_in_time():
    fleet = Fleet(SPILLS)
    fleet.waits(a=(1.9, 1.9), b=0.0)
    assert {fleet.choose() for _ in range(20)} == {("a0", None), ("a1", None)}


def test_what_would_wait_too_long_goes_on_and_comes_back_below_the_bound():
    fleet = Fleet(SPILLS)
    fleet.waits(a=2.1, b=0.1)
    assert fleet.choose() == ("b0", DiversionCause.WAIT)
    fleet.waits(a=1.7, b=0.1)
    assert fleet.choose() == ("b0", DiversionCause.WAIT)
    fleet.waits(a=1.5, b=0.1)
    assert fleet.choose() in {("a0", None), ("a1", None)}


def test_it_is_the_best_endpoint_that_counts():
    fleet = Fleet(SPILLS)
    fleet.waits(a=(9.0, 1.0), b=0.0)
    fleet.pools["a"].targets[1].sent(5000)  # the score prefers the other one
    assert {fleet.choose() for _ in range(20)} == {("a1", None)}
    fleet.pools["a"].targets[1].mark(draining=True)
    assert fleet.choose() == ("b0", DiversionCause.WAIT)


def test_nothing_goes_on_to_where_it_would_wait_longer_still():
    fleet = Fleet(SPILLS)
    fleet.waits(a=(3.0, 4.0), b=8.0)
    assert {fleet.choose() for _ in range(20)} == {("a0", None)}
    assert list(fleet.conditions.diversions(fleet.now)) == []


@pytest.mark.parametrize("rule", [SPILLS, FALLS])
def test_nothing_is_lost_where_the_next_priority_cannot_take_it(rule: Rule):
    fleet = Fleet(rule)
    fleet.fill("b")
    if rule is SPILLS:
        fleet.waits(a=5.0)
    else:
        fleet.spoil()
    assert fleet.choose() in {("a0", None), ("a1", None)}
    fleet.fill("a")
    assert fleet.choose() is None


def test_without_spill_a_queue_is_no_reason_to_go_on():
    fleet = Fleet(Rule("x", refs("a", "b")))
    fleet.waits(a=60.0, b=0.0)
    assert fleet.choose() in {("a0", None), ("a1", None)}


def test_of_three_priorities_the_excess_of_two_reaches_the_third():
    fleet = Fleet(Rule("x", refs("a", "b", "c"), spill=Spill(2.0)), {"a": 1, "b": 1, "c": 1})
    fleet.waits(a=3.0, b=1.0, c=0.0)
    assert fleet.choose() == ("b0", DiversionCause.WAIT)
    fleet.waits(a=3.0, b=2.5, c=1.0)
    assert fleet.choose() == ("c0", DiversionCause.WAIT)
    assert {key[2] for key, _ in fleet.conditions.diversions(fleet.now)} == {0, 1}
    fleet.waits(a=3.0, b=2.5, c=2.9)
    assert fleet.choose() == ("b0", DiversionCause.WAIT), "it waits least there, although for too long"


def test_a_priority_that_is_left_gets_probes_only():
    fleet = Fleet(FALLS)
    assert fleet.choose() in {("a0", None), ("a1", None)}
    fleet.spoil()
    assert {fleet.choose() for _ in range(20)} == {("b0", DiversionCause.ERROR_RATE)}
    fleet.now += 1.0
    assert [fleet.choose() for _ in range(5)].count(("b0", DiversionCause.ERROR_RATE)) == 4
    fleet.now += 1.0
    assert fleet.choose(tried=(fleet.pools["a"].targets[0],)) == ("b0", DiversionCause.ERROR_RATE)


def test_one_that_is_left_and_a_next_that_waits_too_long():
    fleet = Fleet(Rule("x", refs("a", "b", "c"), fallback=Fallback(20), spill=Spill(2.0)), {"a": 1, "b": 1, "c": 1})
    fleet.spoil()
    fleet.waits(a=0.0, b=3.0, c=0.0)
    assert fleet.choose() == ("c0", DiversionCause.ERROR_RATE)


def test_a_rule_without_conditions_has_no_state():
    fleet = Fleet(Rule("x", refs("a", "b")))
    assert all(group.fallback is None and group.spill is None for group in fleet.compiled.groups)
    assert fleet.conditions.info(0.0) == {"fallbacks": {}, "spills": {}}


def test_the_last_priority_has_nowhere_to_go_on_to():
    groups = Fleet(Rule("x", refs("a", "b"), fallback=Fallback(20), spill=Spill(2.0))).compiled.groups
    assert [(group.fallback is None, group.spill is None) for group in groups] == [(False, False), (True, True)]
    assert groups[0].backends[0].spill is groups[0].spill
