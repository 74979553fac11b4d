"""Probe, fetch and reader together against a real listener, with text that the Prometheus client library wrote."""

import time
from random import Random

from prometheus_client import CollectorRegistry, Gauge, Histogram

from spillway_sidecar.admin import AdminPages, AdminServer
from spillway_sidecar.engines import EngineLoad
from spillway_sidecar.reporting import EngineProbe, ProbeTarget, fetch
from spillway_wire.names import Provider
from spillway_wire.snapshot import Health


async def test_an_engine_is_watched_over_http_until_it_goes_away() -> None:
    registry = CollectorRegistry()
    labels = ["engine", "model_name"]
    waiting = Gauge("vllm:num_requests_waiting", "Waiting.", labels, registry=registry)
    running = Gauge("vllm:num_requests_running", "Running.", labels, registry=registry)
    kv_cache = Gauge("vllm:kv_cache_usage_perc", "KV cache.", labels, registry=registry)
    Histogram("vllm:e2e_request_latency_seconds", "Latency.", labels, registry=registry).labels("0", "m").observe(1.5)
    for engine in ("0", "1"):
        model = 'a "quoted" \\ model, with {braces}\n'
        waiting.labels(engine, model).set(3)
        running.labels(engine, model).set(4)
        kv_cache.labels(engine, model).set(0.25)
    server = AdminServer(AdminPages(lambda: (True, "up"), registry, lambda: None, dict), "127.0.0.1", 0)
    await server.start()
    probe = EngineProbe(f"http://127.0.0.1:{server.port}", fetch=fetch, clock=time.monotonic, rng=Random(1))
    probe.retarget(ProbeTarget(Provider.VLLM, Health(path="/healthz", timeout_seconds=10)))

    await probe.check_health()
    await probe.read_metrics()
    assert probe.up
    assert probe.sample(time.monotonic()).load == EngineLoad(6, 8, 0.25)

    await server.stop()
    await probe.check_health()
    assert probe.up
    await probe.check_health()
    assert not probe.up
    assert "ConnectionRefusedError" in str(probe.info()["health_error"])
