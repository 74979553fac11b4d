"""What autoscalers of others are told of a backend: as Prometheus metrics, which KEDA reads, and by the external metrics API.

Figures of a backend are told while at least half of the replicas that take requests report, and routers do; else there is a
reason instead, and no sample: a missing report is not a load of zero. A backend without replicas has figures too: what routers hold for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from spillway_operator.api import ModelBackend
from spillway_operator.loads.figures import ClusterDemand
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.store import BACKEND

SIGNALS: Final = {
    "spillway_operator_backend_replicas_desired": "Replicas that Spillway would have; of backends that declare scaling.",
    "spillway_operator_backend_asked_tokens_per_second": "Tokens that clients ask for, prompts and answers.",
    "spillway_operator_backend_waiting_requests": "Requests that wait: before the engines, in them, and for a first replica.",
    "spillway_operator_backend_running_requests": "Requests under way at the engines.",
    "spillway_operator_backend_gpu_utilization_ratio": "GPU utilisation, mean over the replicas that know.",
    "spillway_operator_backend_kv_cache_ratio": "Use of the KV cache, mean over the replicas that know.",
}
_OF_SCALED: Final = frozenset(
    {"spillway_operator_backend_replicas_desired", "spillway_operator_backend_asked_tokens_per_second"}
)  # which `reconcile.metrics` tells of


@dataclass(frozen=True, slots=True)
class Signals:
    """One backend's figures by their names; `missing` says why there are none."""

    backend: str  # namespace/name
    values: dict[str, float]
    missing: str = ""


def signals(world: World, now: float, namespace: str | None = None) -> Iterator[Signals]:
    """Of every backend with endpoints of its own, or those of one namespace."""
    asked = world.loads.asked(now)
    for entry in world.store.entries(BACKEND, namespace):
        backend, name = entry.object, wire_name(entry.key)
        if isinstance(backend, ModelBackend) and backend.spec.external is None:
            yield _of(world, name, None if asked is None else asked.get(name, ClusterDemand()), now)


def _of(world: World, name: str, asked: ClusterDemand | None, now: float) -> Signals:
    endpoints = world.endpoints(name)
    replicas = [each for each in endpoints.endpoints if not each.draining] if endpoints is not None else []
    load = world.loads.backend([each.id for each in replicas if each.inbound], now)
    if asked is None:
        return Signals(name, {}, f"no router reports what is asked of {name}")
    if 2 * load.known < len(replicas):
        return Signals(name, {}, f"{load.known} of {len(replicas)} replicas of {name} report their load")
    known: dict[str, float | None] = {
        "spillway_operator_backend_asked_tokens_per_second": asked.arrived_tokens_per_second,
        "spillway_operator_backend_waiting_requests": float(load.queue_depth + asked.held),
        "spillway_operator_backend_running_requests": float(load.running),
        "spillway_operator_backend_gpu_utilization_ratio": load.gpu_ratio,
        "spillway_operator_backend_kv_cache_ratio": load.kv_cache_ratio,
    }
    scaled = world.scaled.get(name)
    if scaled is not None and scaled.valid:
        known["spillway_operator_backend_replicas_desired"] = float(scaled.desired)
    return Signals(name, {signal: value for signal, value in known.items() if value is not None})


class SignalCollector(Collector):
    """The figures as gauges."""

    def __init__(self, world: World, clock: Callable[[], float]) -> None:
        self._world = world
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        found = list(signals(self._world, self._clock()))
        for name, text in SIGNALS.items():
            if name in _OF_SCALED:
                continue
            family = GaugeMetricFamily(name, text, labels=("backend",))
            for each in found:
                if name in each.values:
                    family.add_metric((each.backend,), each.values[name])
            yield family
