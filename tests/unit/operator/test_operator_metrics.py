"""Metrics: events are counted, gauges show what there is and nothing that is gone."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest
from tests.fakes.operator_core import Bench, backend, endpoint, route

from spillway_operator.reconcile.metrics import StreamCollector, WorldCollector
from spillway_wire.loads import Load


def _bench() -> Bench:
    bench = Bench()
    bench.registry.register(WorldCollector(bench.world, bench.core.queue))
    refs = [{"name": "fast"}, {"name": "slow"}]
    bench.put(backend("fast"), backend("slow"), route(refs=refs))
    bench.store.set_endpoints({"default/fast": [endpoint("fast-0")], "default/slow": [endpoint("slow-0")]})
    bench.step()
    return bench


def test_looks_publications_reports_and_writes_are_counted():
    bench = _bench()
    bench.publisher.connect("fast-0")
    bench.report("fast-0", Load())
    value = bench.registry.get_sample_value
    assert value("spillway_operator_reconcile_total", {"kind": "ModelBackend", "outcome": "ok"}) == 2
    assert value("spillway_operator_reconcile_seconds_count", {"kind": "ModelRoute"}) == 1
    assert value("spillway_operator_snapshot_publishes_total") == 1
    assert value("spillway_operator_status_writes_total") == 3
    assert value("spillway_operator_load_reports_total", {"outcome": "accepted"}) == 1


def test_gauges_follow_what_there_is():
    bench = _bench()
    value = bench.registry.get_sample_value
    assert value("spillway_operator_snapshot_version") == 1
    assert value("spillway_operator_snapshot_resources") == 5
    assert value("spillway_operator_backend_endpoints", {"backend": "default/fast"}) == 1
    bench.publisher.connect("fast-0")
    bench.publisher.connect("slow-0")
    for _ in range(10):
        bench.report("fast-0", Load(in_flight=100, max_concurrency=100, queued=90))
        bench.report("slow-0", Load(max_concurrency=100))
        bench.step(0.5)
    assert value("spillway_operator_proxies", {"role": "sidecar"}) == 2
    pressure = value("spillway_operator_backend_pressure_ratio", {"backend": "default/fast"})
    assert pressure is not None
    assert pressure > 1
    labels = {"route": "default/chat", "rule": "all", "backend": "default/fast"}
    factor = value("spillway_operator_weight_factor", labels)
    assert factor is not None
    assert factor < 1


def test_what_is_gone_leaves_no_series():
    bench = _bench()
    for entry in list(bench.store.entries("ModelBackend")) + list(bench.store.entries("ModelRoute")):
        bench.store.remove(entry.key)
    bench.step()
    bench.step(1)
    text = generate_latest(bench.registry).decode()
    assert 'backend="default/fast"' not in text


def test_the_streams_counters_are_read_from_its_info():
    registry = CollectorRegistry()
    info = {"updates_total": 3, "events_total": {"nacked": 2}, "closed_total": {"shutdown": 1}}
    registry.register(StreamCollector(lambda: info))
    assert registry.get_sample_value("spillway_operator_stream_updates_total") == 3
    assert registry.get_sample_value("spillway_operator_stream_messages_total", {"kind": "nacked"}) == 2
    assert registry.get_sample_value("spillway_operator_stream_closes_total", {"reason": "shutdown"}) == 1
    assert registry.get_sample_value("spillway_operator_stream_connections_total") == 0
