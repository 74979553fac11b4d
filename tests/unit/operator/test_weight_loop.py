"""The slow loop through the core: pressure moves weights, rest leaves no trace."""

from __future__ import annotations

from typing import Any

from tests.fakes.operator_core import Bench, backend, endpoint, route

from spillway_operator.api import ObjectKey
from spillway_operator.store import BACKEND, ROUTE
from spillway_wire.loads import Demand, Load
from spillway_wire.names import Role
from spillway_wire.snapshot import Weights

CHAT = ObjectKey(ROUTE, "default", "chat")
IDLE = Load(in_flight=1, max_concurrency=100)
FULL = Load(in_flight=100, queued=60, max_concurrency=100)


def _bench(**spec: Any) -> Bench:
    bench = Bench()
    refs = [{"name": "fast", "weight": 90}, {"name": "slow", "weight": 10}]
    bench.put(backend("fast"), backend("slow"), route(refs=refs, **spec))
    bench.store.set_endpoints({"default/fast": [endpoint("fast-0")], "default/slow": [endpoint("slow-0")]})
    bench.step()
    for name in ("fast-0", "slow-0"):
        bench.publisher.connect(name)
    bench.publisher.ack()
    return bench


def _run(bench: Bench, seconds: float, **loads: Load) -> None:
    for _ in range(round(seconds / 0.5)):
        for name, load in loads.items():
            bench.report(f"{name}-0", load)
        bench.step(0.5)


def _weights(bench: Bench) -> dict[str, float]:
    encoded = bench.publisher.current.resources.get(("weights", "default/chat"))
    if encoded is None:
        return {}
    assert isinstance(encoded.resource, Weights)
    return encoded.resource.rules[0].weights


def test_at_rest_there_are_no_weights_and_no_churn():
    bench = _bench()
    _run(bench, 30, fast=IDLE, slow=IDLE)
    assert len(bench.publisher.states) == 1
    assert _weights(bench) == {}


def test_traffic_moves_away_from_a_full_backend_within_seconds():
    bench = _bench()
    _run(bench, 3, fast=IDLE, slow=IDLE)
    _run(bench, 5, fast=FULL, slow=IDLE)
    weights = _weights(bench)
    assert weights["default/slow"] == 10.0
    assert weights["default/fast"] < 45
    assert bench.condition(ObjectKey(BACKEND, "default", "fast"), "Saturated") == ("True", "OverBound")


def test_it_comes_back_to_the_declared_weights_and_leaves_nothing_behind():
    bench = _bench()
    _run(bench, 5, fast=FULL, slow=IDLE)
    assert _weights(bench)
    _run(bench, 40, fast=IDLE, slow=IDLE)
    assert _weights(bench) == {}
    assert bench.core.info()["factors"] == {}


def test_snapshots_are_few_while_weights_recover():
    bench = _bench()
    _run(bench, 10, fast=FULL, slow=IDLE)
    before = len(bench.publisher.states)
    _run(bench, 40, fast=IDLE, slow=IDLE)
    assert len(bench.publisher.states) - before <= 45


def test_stale_reports_hold_the_weights():
    bench = _bench()
    _run(bench, 5, fast=FULL, slow=IDLE)
    _run(bench, 4, slow=IDLE)
    held = _weights(bench)
    _run(bench, 20, slow=IDLE)
    assert held
    assert _weights(bench) == held
    assert bench.condition(ObjectKey(BACKEND, "default", "fast"), "Saturated") == ("Unknown", "LoadUnknown")


def test_an_edit_of_weights_under_pressure_goes_out_in_one_state_with_the_correction():
    bench = _bench()
    _run(bench, 10, fast=FULL, slow=IDLE)
    factor = _weights(bench)["default/fast"] / 90
    before = len(bench.publisher.states)
    bench.put(route(refs=[{"name": "fast", "weight": 10}, {"name": "slow", "weight": 90}], generation=2))
    bench.step(0.01)
    assert len(bench.publisher.states) == before + 1
    weights = _weights(bench)
    assert weights["default/slow"] == 90.0
    assert abs(weights["default/fast"] - 10 * factor) < 1e-6


def test_the_status_shows_effective_weights():
    bench = _bench()
    _run(bench, 10, fast=FULL, slow=IDLE)
    bench.step(1.5)
    found = {each["name"]: each["weightPercent"] for each in bench.store.documents(ROUTE)[0]["status"]["backends"]}
    weights = _weights(bench)
    assert found["slow"] == round(100 * 10 / (10 + weights["default/fast"]))


def test_a_rule_with_one_backend_a_priority_has_nothing_to_balance():
    bench = _bench(rules=[{"name": "all", "backendRefs": [{"name": "fast"}, {"name": "slow", "priority": 1}]}])
    _run(bench, 10, fast=FULL, slow=IDLE)
    assert len(bench.publisher.states) == 1


def test_a_deleted_route_takes_its_factors_along():
    bench = _bench()
    _run(bench, 5, fast=FULL, slow=IDLE)
    bench.store.remove(CHAT)
    _run(bench, 1, fast=FULL, slow=IDLE)
    assert bench.world.factors == {}
    assert bench.world.published_factors == {}
    assert ("weights", "default/chat") not in bench.publisher.current.resources


def test_external_backends_are_judged_by_what_routers_have_under_way():
    bench = Bench()
    near = backend("near", external={"url": "http://localhost/v1"}, limits={"maxConcurrency": 10})
    far = backend("far", external={"url": "https://example.com/v1"}, limits={"maxConcurrency": 10})
    bench.put(near, far, route(refs=[{"name": "near"}, {"name": "far"}]))
    bench.step()
    bench.publisher.connect("gateway-0", role=Role.GATEWAY)
    for _ in range(20):
        bench.report("gateway-0", demand=(Demand(cluster="default/near", in_flight=30),))
        bench.step(0.5)
    weights = _weights(bench)
    assert weights["default/near"] < weights["default/far"] == 1.0
    status = bench.store.documents(BACKEND)[1]["status"]
    assert status["load"] == {"running": 30}
