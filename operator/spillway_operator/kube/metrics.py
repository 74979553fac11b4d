"""What the parts that talk to the API server count, read when somebody asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

_PREFIX: Final = "spillway_operator_"


class ClusterCollector(Collector):
    """Metrics from the `info()` of the cluster's parts and of the source."""

    def __init__(self, cluster: Callable[[], Mapping[str, Any]], source: Callable[[], Mapping[str, Any]]) -> None:
        self._cluster = cluster
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """The metrics."""
        cluster, source = self._cluster(), self._source()
        election, writes, events = cluster["election"], cluster["status_writes"], cluster["events"]
        yield GaugeMetricFamily(f"{_PREFIX}leader", "1 while this replica leads.", value=float(election["leads"]))
        yield CounterMetricFamily(f"{_PREFIX}terms", "Terms that this replica has led.", value=election["terms"])
        yield GaugeMetricFamily(f"{_PREFIX}synced", "1 once every resource was read.", value=float(source["synced"]))
        yield CounterMetricFamily(f"{_PREFIX}watch_starts", "Times that watching began.", value=source["kopf"]["starts"])
        failing = GaugeMetricFamily(
            f"{_PREFIX}watch_failing_seconds", "How long a resource cannot be watched.", labels=("resource",)
        )
        for resource, contact in source["kopf"]["contacts"].items():
            failing.add_metric((resource,), contact["failing_seconds"] or 0.0)
        yield failing
        yield _by("api_requests", "Requests to the API server, without watches.", "outcome", cluster["api"]["requests"])
        yield GaugeMetricFamily(f"{_PREFIX}status_writes_waiting", "Statuses that wait to be written.", value=writes["waiting"])
        yield _by("status_applies", "Statuses for the API server, by what became of them.", "outcome", writes["counts"])
        yield _by("events", "Kubernetes Events.", "outcome", {name: events[name] for name in ("posted", "dropped", "repeated")})
        yield _by("scale_requests", "Reads and writes of targets' replicas.", "outcome", cluster["scale"]["counts"])
        scaled = GaugeMetricFamily(
            f"{_PREFIX}target_scaled_timestamp_seconds", "When the replicas of a target were last set here.", labels=("target",)
        )
        for target, about in cluster["scale"]["targets"].items():
            if about["set_at"] is not None:
                scaled.add_metric((target,), about["set_at"])
        yield scaled
        yield _by("deletion_costs", "Costs of pods that were written.", "outcome", cluster["deletion_costs"]["counts"])
        yield _by("token_reviews", "Tokens of proxies.", "outcome", cluster["token_reviews"]["counts"])


def _by(name: str, text: str, label: str, counts: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(_PREFIX + name, text, labels=(label,))
    for value, count in counts.items():
        family.add_metric((value.lower(),), count)
    return family
