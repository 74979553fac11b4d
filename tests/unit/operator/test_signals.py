"""What autoscalers of others are told: figures while at least half of the replicas report, and else none."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from tests.fakes.operator_core import Bench, backend, endpoint

from spillway_operator.policies import reasons
from spillway_operator.policies.facts import ScalingFacts
from spillway_operator.reconcile.signals import SIGNALS, SignalCollector, Signals, signals
from spillway_operator.reconcile.world import Scaled
from spillway_wire.loads import Demand, Load
from spillway_wire.names import Role

FAST = "default/fast"


def _bench(*replicas: str) -> Bench:
    bench = Bench()
    bench.put(backend("fast"), backend("outside", external={"url": "https://example.com"}))
    bench.store.set_endpoints({FAST: [endpoint(name) for name in replicas]})
    bench.step()
    for name in replicas:
        bench.publisher.connect(name)
    bench.publisher.connect("gateway", role=Role.GATEWAY)
    return bench


def _hear(bench: Bench, *demand: Demand) -> None:
    bench.report("gateway", demand=demand)


def _one(bench: Bench) -> Signals:
    (found,) = signals(bench.world, bench.now, "default")
    return found


def test_figures_are_sums_and_means_over_those_that_report():
    bench = _bench("fast-0", "fast-1", "fast-2")
    bench.report("fast-0", Load(queued=3, engine_waiting=1, in_flight=8, gpu_ratio=0.5, max_concurrency=16))
    bench.report("fast-1", Load(engine_running=4, in_flight=6, gpu_ratio=1.0, max_concurrency=16))
    _hear(bench, Demand(cluster=FAST, held=2))
    assert _one(bench).values == {
        "spillway_operator_backend_asked_tokens_per_second": 0.0,
        "spillway_operator_backend_waiting_requests": 6.0,
        "spillway_operator_backend_running_requests": 12.0,
        "spillway_operator_backend_gpu_utilization_ratio": 0.75,
    }


def test_under_half_of_the_replicas_is_a_reason_and_no_figure():
    bench = _bench("fast-0", "fast-1", "fast-2")
    bench.report("fast-0", Load(queued=3))
    _hear(bench)
    found = _one(bench)
    assert (found.values, found.missing) == ({}, "1 of 3 replicas of default/fast report their load")
    bench.report("fast-1", Load(queued=3))
    assert _one(bench).missing == ""


def test_replicas_without_a_sidecar_report_nothing():
    bench = _bench()
    bench.store.set_endpoints({FAST: [endpoint("fast-0", inbound=False)]})
    bench.step()
    _hear(bench)
    assert _one(bench).missing == "0 of 1 replicas of default/fast report their load"


def test_no_router_is_a_reason_too():
    bench = _bench("fast-0")
    bench.world.loads.retain([])
    assert _one(bench).missing == "no router reports what is asked of default/fast"


def test_without_replicas_there_is_what_routers_hold():
    bench = _bench()
    _hear(bench, Demand(cluster=FAST, held=5))
    assert _one(bench).values["spillway_operator_backend_waiting_requests"] == 5.0


def test_what_we_would_have_is_told_while_it_was_measured():
    bench = _bench()
    _hear(bench)
    facts = ScalingFacts(reasons.STEADY, active=True)
    bench.world.scaled[FAST] = Scaled(facts, desired=4, valid=True)
    assert _one(bench).values["spillway_operator_backend_replicas_desired"] == 4.0
    bench.world.scaled[FAST] = Scaled(facts, desired=4)
    assert "spillway_operator_backend_replicas_desired" not in _one(bench).values


def test_as_metrics_what_is_not_known_has_no_sample():
    bench = _bench("fast-0")
    registry = CollectorRegistry()
    registry.register(SignalCollector(bench.world, lambda: bench.now))
    waiting = "spillway_operator_backend_waiting_requests"
    assert registry.get_sample_value(waiting, {"backend": FAST}) is None
    bench.report("fast-0", Load(queued=3))
    _hear(bench)
    assert registry.get_sample_value(waiting, {"backend": FAST}) == 3.0
    assert {family.name for family in registry.collect()} < set(SIGNALS)
