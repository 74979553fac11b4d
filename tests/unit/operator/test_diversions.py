"""What proxies send past a priority, on its way into a route's status."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes.operator_core import Bench, backend, endpoint, route

from spillway_operator.api import ObjectKey
from spillway_operator.store import ROUTE
from spillway_wire.loads import BackendTraffic, Diversion
from spillway_wire.names import DiversionCause

CHAT = ObjectKey(ROUTE, "default", "chat")
SPILLING = Diversion("default/chat", "all", 0, DiversionCause.WAIT, "predicted wait 3.1 s > 2 s")
LEFT = Diversion("default/chat", "all", 0, DiversionCause.ERROR_RATE, "error rate 22 % > 5 %")


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    refs = [{"name": "fast"}, {"name": "slow", "priority": 1}]
    rule = {"name": "all", "backendRefs": refs, "spill": {"maxWait": "2s"}, "fallback": {"errorRatePercent": 5}}
    bench.put(backend("fast"), backend("slow"), route(rules=[rule]))
    bench.store.set_endpoints({"default/fast": [endpoint("fast-0")], "default/slow": [endpoint("slow-0")]})
    bench.step()
    for name in ("fast-0", "slow-0"):
        bench.publisher.connect(name)
    bench.publisher.ack()
    bench.step()
    return bench


def _told(bench: Bench, *diversions: Diversion, **fields: Any) -> dict[str, Any]:
    """The route's status after a report."""
    bench.report("fast-0", diversions=diversions, **fields)
    bench.step(1.1)
    status: dict[str, Any] = bench.store.documents(ROUTE)[0]["status"]
    return status


def _backends(status: dict[str, Any]) -> dict[str, tuple[int, bool]]:
    return {each["name"]: (each["weightPercent"], each["active"]) for each in status["backends"]}


def test_at_rest_a_route_says_that_it_keeps_its_requests(bench: Bench):
    assert _backends(_told(bench)) == {"fast": (100, True), "slow": (0, False)}
    assert bench.condition(CHAT, "SpillActive") == bench.condition(CHAT, "FallbackActive") == ("False", "WithinBounds")


def test_a_spill_shows_with_its_reason_and_the_shares_that_were_routed(bench: Bench):
    traffic = tuple(
        BackendTraffic("default/chat", "all", f"default/{name}", requests=count) for name, count in (("fast", 93), ("slow", 7))
    )
    status = _told(bench, SPILLING, traffic=traffic)
    assert _backends(status) == {"fast": (93, True), "slow": (7, True)}
    assert status["summary"]["weights"] == "fast=93%,slow=7%"
    assert status["summary"]["active"] == "all:PredictedWait"
    assert bench.condition(CHAT, "SpillActive") == ("True", "PredictedWait")
    assert bench.message(CHAT, "SpillActive") == "rule all spills past priority 0 (predicted wait 3.1 s > 2 s)"
    assert "active" not in _told(bench)["summary"] or not _told(bench)["summary"]["active"]
    assert bench.condition(CHAT, "SpillActive") == ("False", "WithinBounds")


def test_a_fallback_leaves_the_first_backend_inactive(bench: Bench):
    status = _told(bench, LEFT)
    assert _backends(status) == {"fast": (0, False), "slow": (100, True)}
    assert bench.condition(CHAT, "FallbackActive") == ("True", "ErrorRate")
    assert bench.condition(CHAT, "SpillActive") == ("False", "WithinBounds")


def test_a_change_is_told_at_once_and_not_at_the_next_second(bench: Bench):
    bench.step(1.1)
    bench.step(0.2)
    bench.report("fast-0", diversions=(SPILLING,))
    bench.step(0.01)
    assert bench.condition(CHAT, "SpillActive") == ("True", "PredictedWait")


def test_a_proxy_that_has_fallen_silent_says_nothing_any_more(bench: Bench):
    _told(bench, SPILLING)
    for _ in range(4):
        bench.step(1.0)
    assert bench.condition(CHAT, "SpillActive") == ("False", "WithinBounds")


def test_causes_and_rules_that_are_not_known_here_are_passed_over(bench: Bench):
    odd = (Diversion("default/chat", "all", 0, "a b", ""), Diversion("default/chat", "gone", 0, DiversionCause.WAIT, ""))
    _told(bench, *odd, Diversion("default/other", "all", 0, DiversionCause.WAIT, ""))
    assert bench.condition(CHAT, "SpillActive") == ("False", "WithinBounds")
