"""When a request finds no replica at all, for which backend it waits then, and whose demand it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from spillway_sidecar.balancing.asleep import asked, asleep
from spillway_sidecar.routing.table import CompiledRule, compile_table
from spillway_sidecar.scheduling.arrivals import Arrivals
from spillway_sidecar.scheduling.health import Ejection
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.loads import Load
from spillway_wire.names import RequestType
from spillway_wire.snapshot import BackendRef, Route, Rule

CHAT, EMBEDDINGS = RequestType.CHAT, RequestType.EMBEDDINGS
SCALING = {"a", "c"}
TYPES = {"a": (CHAT,), "b": (CHAT, EMBEDDINGS), "c": (CHAT, EMBEDDINGS)}


def rule(*refs: BackendRef, **sizes: int) -> CompiledRule[Pool[EndpointState]]:
    """A rule; `a` and `c` scale, and `a` serves no embeddings."""
    speed = ClusterSpeed()
    pools = {
        name: Pool(
            name,
            [EndpointState(f"{name}{n}", True, speed) for n in range(sizes.get(name, 0))],
            speed,
            arrivals=Arrivals() if name in SCALING else None,
        )
        for name in "abc"
    }
    route = Route("r", ("m",), (Rule("all", refs),))
    table = compile_table("1", [route], {}, lambda name: (pools[name], "m", TYPES[name]), holding=SCALING)
    return table.routes["m"].rules[0]


def held_for(compiled: CompiledRule[Pool[EndpointState]], request_type: RequestType = CHAT) -> str | None:
    """The backend that a request waits for."""
    backend = asleep(compiled, request_type)
    return None if backend is None else backend.name


@pytest.mark.parametrize(
    ("compiled", "chat", "embeddings"),
    [
        (rule(BackendRef("a")), "a", None),
        (rule(BackendRef("a"), a=1), None, None),
        (rule(BackendRef("b")), None, None),
        (rule(BackendRef("b"), BackendRef("c")), "c", "c"),
        (rule(BackendRef("a"), BackendRef("b", priority=1), b=1), None, None),
        (rule(BackendRef("a"), BackendRef("c", priority=1)), "a", "c"),
        (rule(BackendRef("a", priority=1), BackendRef("c")), "c", "c"),
        (rule(BackendRef("a"), BackendRef("c"), a=1), None, "c"),
        (rule(BackendRef("a", weight=0), BackendRef("b")), None, None),
    ],
)
def test_the_first_that_scales_is_waited_for_while_nobody_is_there(
    compiled: CompiledRule[Pool[EndpointState]], chat: str | None, embeddings: str | None
):
    assert held_for(compiled) == chat
    assert held_for(compiled, EMBEDDINGS) == embeddings


GONE: dict[str, Callable[[EndpointState], object]] = {
    "leaves": lambda e: e.mark(draining=True),
    "cannot be used": lambda e: e.mark(blocked=True),
    "says so itself": lambda e: e.report(Load(engine_up=False), 10.0),
    "cannot be reached": lambda e: e.failed(10.0, hard=True),
}
THERE: dict[str, Callable[[EndpointState], object]] = {
    "is full": lambda e: [e.sent(1) for _ in range(1000)],
    "wants a pause": lambda e: e.limit_rate(5.0, 10.0),
    "fails": lambda e: [e.failed(10.0, hard=False) for _ in range(9)],
    "is silent": lambda e: e.eject(Ejection.SILENT, 10.0),
}


@pytest.mark.parametrize("how", GONE)
def test_what_is_gone_is_no_replica_also_when_it_is_time_to_ask_it_again(how: str):
    compiled = rule(BackendRef("a"), a=2)
    one, two = compiled.groups[0].backends[0].cluster.targets
    GONE[how](one)
    assert held_for(compiled) is None, "the other is there"
    GONE[how](two)
    assert held_for(compiled) == "a"


@pytest.mark.parametrize("how", THERE)
def test_what_answers_is_one(how: str):
    compiled = rule(BackendRef("a"), a=1)
    THERE[how](compiled.groups[0].backends[0].cluster.targets[0])
    assert held_for(compiled) is None


@pytest.mark.parametrize(
    ("refs", "chosen", "clusters"),
    [
        ((BackendRef("a"),), None, "a"),
        ((BackendRef("a"),), "a", "a"),
        ((BackendRef("b"),), "b", ""),
        ((BackendRef("a"), BackendRef("b", priority=1)), "b", "a"),
        ((BackendRef("a"), BackendRef("c", priority=1)), "c", "ac"),
        ((BackendRef("a"), BackendRef("c")), "c", "c"),
        ((BackendRef("b"), BackendRef("a", priority=1)), "b", ""),
        ((BackendRef("b"), BackendRef("a", priority=1)), "a", "a"),
        ((BackendRef("a"), BackendRef("b")), "b", "a"),
    ],
)
def test_a_request_is_demand_of_where_it_goes_and_of_where_it_would_have_gone(
    refs: tuple[BackendRef, ...], chosen: str | None, clusters: str
):
    assert clusters_asked(rule(*refs), chosen) == clusters


def test_beside_one_that_is_there_a_request_is_demand_of_where_it_goes_alone():
    assert clusters_asked(rule(BackendRef("a"), BackendRef("b"), a=1), "b") == ""
    assert clusters_asked(rule(BackendRef("a"), BackendRef("b", priority=1), a=1), "b") == "a", (
        "what overflows is asked of the first"
    )


def clusters_asked(compiled: CompiledRule[Pool[EndpointState]], chosen: str | None) -> str:
    backends = {backend.name: backend for group in compiled.groups for backend in group.backends}
    found = asked(compiled, CHAT, None if chosen is None else backends[chosen])
    return "".join(pool.name for pool in found)
