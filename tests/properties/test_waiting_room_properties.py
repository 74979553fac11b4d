"""Requests that wait at a router, for room or for a first replica: bounded, never lost, and each with one answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.waiting import WaitingRoom
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import RoutingTable, compile_table
from spillway_sidecar.scheduling.arrivals import Arrivals
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import RequestType
from spillway_wire.snapshot import BackendRef, FlowControl, Route, Rule, Timeouts

MAX_REQUESTS, MAX_BYTES, HOLD, REQUEST = 12, 400, 60.0, 100.0


@dataclass(eq=False)
class Asked:
    """What a waiting room knows of a request; `ends` is all that became of it."""

    site: Site
    priority: int
    body: bytes
    started: float
    patience: float
    facts: Facts = field(default_factory=lambda: Facts(RequestType.CHAT, "m", True, 100))
    cost: int = 164
    tried: tuple[EndpointState, ...] = ()
    ticket: Any = None
    deadline: float = 0.0
    at: EndpointState | None = None
    ends: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.route = self.site.table.routes["m"]
        self.rule = self.route.rules[0]

    def admitted(self, _backend: Any, target: EndpointState) -> None:
        assert not self.ends
        assert self.at is None
        assert self.site.now <= self.deadline + 1.0
        target.sent(self.cost)
        self.at = target

    def evicted(self, refusal: Refusal) -> None:
        self.end(refusal.outcome)

    def end(self, outcome: str) -> None:
        """Whatever way out."""
        self.ends.append(outcome)
        target, self.at = self.at, None
        if target is not None:
            target.done(self.cost)
        self.site.waiting.over(self, 100, 64)  # type: ignore[arg-type]
        if target is not None:
            self.site.waiting.freed(self.rule.groups[0].backends[0], target)  # type: ignore[arg-type]


class Site:
    """A router's waiting room over one backend that scales."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.routers = 1
        self.waiting = WaitingRoom(self)  # type: ignore[arg-type]
        self.count = 0
        self.asked: list[Asked] = []
        self.table = self.swap(0)

    def clock(self) -> float:
        return self.now

    @staticmethod
    def random() -> float:
        return 0.5

    def swap(self, endpoints: int) -> RoutingTable[Any]:
        """A snapshot with so many new endpoints, each for two requests."""
        speed = ClusterSpeed()
        targets = []
        for _ in range(endpoints):
            self.count += 1
            targets.append(EndpointState(f"e{self.count}", False, speed))
            targets[-1].limit(2, 0)
        for gone in getattr(self, "targets", ()):
            gone.mark(draining=True)
        self.targets = targets
        pool = Pool("a", targets, speed, hold_seconds=HOLD, arrivals=Arrivals())
        flow = FlowControl(max_requests=MAX_REQUESTS, max_bytes=MAX_BYTES)
        route = Route(
            "r", ("m",), (Rule("all", (BackendRef("a"),)),), timeouts=Timeouts(request_seconds=REQUEST), flow_control=flow
        )
        self.table = compile_table("1", [route], {}, lambda _: (pool, "m", tuple(RequestType)), holding={"a"})
        self.waiting.follow(self.table)
        return self.table

    def come(self, priority: int, size: int, patience: float) -> None:
        """One request, which finds no place at once."""
        asked: Any = Asked(self, priority, b"x" * size, self.now, patience)
        self.asked.append(asked)
        fields = {b"x-llm-d-slo-ttft-ms": b"%d" % int(patience * 1000), b"x-llm-d-inference-fairness-id": b"%d" % (size % 3)}
        enter = self.waiting.hold if not self.targets else self.waiting.enter
        refusal = enter(asked, fields)
        if refusal is not None:
            asked.ends.append(refusal.outcome)

    def pass_time(self, seconds: float) -> None:
        """As the proxy's sweep."""
        self.now += seconds
        for asked in self.of(waits=True):
            if self.now >= asked.deadline:
                asked.end(self.waiting.out_of_time(asked).outcome)  # type: ignore[arg-type]
        self.waiting.sweep(self.now)

    def happen(self, what: str, asked: Asked) -> None:
        """It leaves, it is answered, or its attempt has failed and no endpoint is left to it."""
        target = asked.at
        if what != "again" or target is None:
            asked.end(Outcome.CLIENT_GONE if what == "leave" else Outcome.OK)
            return
        asked.at = None
        target.done(asked.cost)
        asked.route = self.table.routes["m"]
        asked.rule = asked.route.rules[0]
        again: Any = self.waiting.hold if self.waiting.holds(asked) else self.waiting.enter  # type: ignore[arg-type]
        refusal = again(asked)
        if refusal is not None:
            asked.end(refusal.outcome)

    def of(self, *, waits: bool) -> list[Asked]:
        """Those that wait, or those at an endpoint."""
        return [each for each in self.asked if not each.ends and (each.at is None) is waits]

    def check(self) -> None:
        """What holds at every moment."""
        waiting = self.of(waits=True)
        assert self.waiting.count == len(waiting) <= MAX_REQUESTS
        assert sum(len(each.body) for each in waiting) <= MAX_BYTES
        assert all(each.ticket is not None and each.ticket.waits for each in waiting)
        assert all(len(each.ends) <= 1 for each in self.asked)
        assert all(each.deadline <= each.started + min(REQUEST, each.patience) + 1e-6 for each in waiting)
        held = self.waiting.held()
        assert held in ({}, {"a": (len(waiting), sum(each.cost for each in waiting))}), "all of them, or none"
        assert all(target.in_flight <= 2 for target in self.targets)
        told = self.waiting.held_figures()
        assert not told or (told[0][1] <= len(waiting) and told[0][1] <= told[0][2])


STEPS = st.one_of(
    st.tuples(st.just("come"), st.integers(-1, 1), st.integers(0, 120), st.floats(0.0, 200.0)),
    st.tuples(st.just("leave"), st.integers(0, 50)),
    st.tuples(st.just("end"), st.integers(0, 50)),
    st.tuples(st.just("pass"), st.floats(0.0, 30.0)),
    st.tuples(st.just("swap"), st.integers(0, 2)),
    st.tuples(st.just("lose"), st.integers(0, 50)),
    st.tuples(st.just("again"), st.integers(0, 50)),
)


async def play(steps: list[tuple[Any, ...]]) -> None:
    """Everything that may happen, in any order; then a replica comes up, and all who still wait are answered."""
    site = Site()
    for what, *given_ in steps:
        if what == "come":
            site.come(*given_)
        elif what == "pass":
            site.pass_time(*given_)
        elif what == "swap":
            site.swap(*given_)
        elif what == "lose" and site.targets:  # it cannot be reached any more
            site.targets[given_[0] % len(site.targets)].failed(site.now, hard=True)
        elif what in {"leave", "end", "again"} and (found := site.of(waits=what == "leave")):
            site.happen(what, found[given_[0] % len(found)])
        await asyncio.sleep(0)
        site.check()
    site.swap(1)
    for _ in range(200):
        for each in site.of(waits=False):
            each.end(Outcome.OK)
        await asyncio.sleep(0)
        site.check()
        if not site.of(waits=True):
            break
        site.pass_time(0.1)
        assert site.waiting.held() == {}, "it is room that is waited for now"
    assert not site.of(waits=True), "an endpoint that answers at once leaves nobody behind"
    for each in site.of(waits=False):
        each.end(Outcome.OK)
    assert all(len(each.ends) == 1 for each in site.asked)
    assert site.waiting.count == 0
    assert site.waiting.held() == {}
    info: Any = site.waiting.info()["lanes"]
    assert all(lane["waiting"] == lane["bytes"] == 0 for lane in info.values())


COMES_WHILE_ONE_THAT_WAS_HELD_IS_AGAIN = [("come", 0, 0, 1.0), ("swap", 1), ("lose", 0), ("again", 0), ("come", 0, 0, 1.0)]


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=60))
@example(COMES_WHILE_ONE_THAT_WAS_HELD_IS_AGAIN)
def test_nobody_is_lost_and_bounds_hold(steps: list[tuple[Any, ...]]):
    asyncio.run(play(steps))
