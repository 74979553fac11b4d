"""What a sidecar has and a gateway has not: an inbound listener before its engine, and eyes on the engine and the GPU.

Which cluster the engine belongs to, and with it the limits, the engine's kind and its health check, comes with each snapshot:
it is the cluster that has an endpoint with this proxy's node id. Until one does, or when it is gone, the defaults hold.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry

from spillway_sidecar.proxy.inbound import InboundSite
from spillway_sidecar.proxy.swap import ASK_FOR_LOAD, request_heads
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.reporting import DcgmReader, EngineProbe, GpuSampler, HostSampler, NvmlReader, ProbeTarget, fetch
from spillway_sidecar.reporting.gpu import GpuReader
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.settings import Settings
from spillway_sidecar.telemetry.exposition import InboundCollector
from spillway_wire.loads import Load
from spillway_wire.names import Provider
from spillway_wire.snapshot import Cluster, Endpoints, Health, Limits, Resource, ResourceKey


class Guard:
    """The inbound side of one sidecar. `load` and `load_header` come from the reporter, which is made after it."""

    def __init__(self, settings: Settings, boot_id: str, clock: Callable[[], float], rng: random.Random) -> None:
        self._node_id = settings.node_id
        host, port = settings.engine_host, settings.engine_port
        engine = Target("engine", host, port, False, ClusterSpeed())
        engine.heads = request_heads(host, port, tls=False, prefix="/v1", extra=ASK_FOR_LOAD)
        authority = f"[{host}]" if ":" in host else host
        self.late_seconds: Callable[[], float] = float
        self.probe = EngineProbe(
            f"http://{authority}:{port}",
            fetch=fetch,
            clock=clock,
            rng=rng,
            late_seconds=self._late_seconds,
            replied_at=lambda: engine.replied_at,
        )
        readers: list[GpuReader] = [NvmlReader(clock=clock)]
        if settings.dcgm_url is not None:
            readers.append(DcgmReader(settings.dcgm_url, namespace=settings.namespace, pod=settings.pod, fetch=fetch, clock=clock))
        self.gpu = GpuSampler(readers, clock=clock, rng=rng)
        self.host = HostSampler()
        self.load_header: Callable[[], bytes] = bytes
        self.site = InboundSite(
            clock=clock,
            engine=engine,
            load_header=self._load_header,
            engine_up=lambda: self.probe.up,
            engine_failed=self.probe.failed,
            engine_told=self.probe.heard,
            id_prefix=f"{boot_id}-i",
            limits=settings.client_limits,
        )
        self._cluster: Cluster | None = None
        # A pod that has just started must not pass for ready while its engine loads the model.
        health = settings.engine_health
        self._first = ProbeTarget(Provider.OPENAI_COMPATIBLE, Health(path=health)) if health is not None else None
        self.probe.retarget(self._first)

    def _late_seconds(self) -> float:
        return self.late_seconds()

    def _load_header(self) -> bytes:
        return self.load_header()

    def follow(self, resources: Mapping[ResourceKey, Resource]) -> None:
        """Takes limits, engine kind and health check from the snapshot put in force."""
        cluster = self._own_cluster(resources)
        if cluster == self._cluster:
            return
        self._cluster = cluster
        limits = cluster.limits if cluster is not None else Limits()
        self.site.resize(limits.max_concurrency, limits.max_queue)
        self.probe.retarget(ProbeTarget(cluster.provider, cluster.health) if cluster is not None else self._first)

    def _own_cluster(self, resources: Mapping[ResourceKey, Resource]) -> Cluster | None:
        for resource in resources.values():
            if isinstance(resource, Endpoints) and any(e.id == self._node_id and e.inbound for e in resource.endpoints):
                cluster = resources.get(("cluster", resource.name))
                return cluster if isinstance(cluster, Cluster) else None
        return None

    def register(self, registry: CollectorRegistry, load: Callable[[], Load | None]) -> None:
        """Adds the inbound listener's metrics."""

        def gauges() -> dict[str, float | None]:
            current = load() or Load()
            return {
                "in_flight": current.in_flight,
                "queued": current.queued,
                "in_flight_tokens": current.in_flight_tokens,
                "max_concurrency": current.max_concurrency,
                "tokens_per_second": current.tokens_per_second,
                "engine_up": float(current.engine_up) if self.probe.known else None,
                "engine_waiting": current.engine_waiting,
                "engine_running": current.engine_running,
                "kv_cache_ratio": current.kv_cache_ratio,
                "gpu_utilization_ratio": current.gpu_ratio,
                "gpu_memory_ratio": current.gpu_memory_ratio,
                "node_cpu_ratio": current.cpu_ratio,
                "node_memory_ratio": current.memory_ratio,
                "waiting_tokens": current.waiting_tokens,
                "place_tokens": current.place_tokens or 0,
            }

        registry.register(InboundCollector(gauges, lambda: self.site.outcomes, self.site.ttft))

    def info(self) -> dict[str, object]:
        """State of the inbound side."""
        return {
            "cluster": self._cluster.name if self._cluster is not None else None,
            "inbound": self.site.info(),
            "engine": self.probe.info(),
            "gpu": self.gpu.info(),
        }
