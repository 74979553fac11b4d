"""The operator's metrics.

Events are counted where they happen; everything that has a present value is read at scrape time, so that no series outlives
what it describes.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from spillway_operator.api import ObjectKey
from spillway_operator.loads.store import ReportOutcome
from spillway_operator.reconcile.queue import DirtyQueue
from spillway_operator.reconcile.world import World

_SECONDS = (0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0)


class Metrics:
    """Counters and histograms, in the registry that is passed in."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.reconciled = Counter(
            "spillway_operator_reconcile_total", "Looks at an object, by outcome.", ("kind", "outcome"), registry=registry
        )
        self.reconcile_seconds = Histogram(
            "spillway_operator_reconcile_seconds", "Time of one look at an object.", ("kind",), buckets=_SECONDS, registry=registry
        )
        self.publishes = Counter("spillway_operator_snapshot_publishes_total", "Snapshot states published.", registry=registry)
        self.status_writes = Counter("spillway_operator_status_writes_total", "Statuses handed to the sink.", registry=registry)
        self.status_seconds = Histogram(
            "spillway_operator_status_pass_seconds", "Time of one pass over all statuses.", buckets=_SECONDS, registry=registry
        )
        self.weight_changes = Counter(
            "spillway_operator_weight_changes_total", "Routes whose effective weights were changed.", registry=registry
        )
        self.scalings = Counter(
            "spillway_operator_scalings_total",
            "Changes of the number of replicas.",
            ("backend", "direction"),
            registry=registry,
        )
        reports = Counter(
            "spillway_operator_load_reports_total", "Load reports, by what became of them.", ("outcome",), registry=registry
        )
        self.reports = {outcome: reports.labels(outcome=outcome.value) for outcome in ReportOutcome}

    def count_scaling(self, cluster: str, before: int, after: int) -> None:
        """A backend is to have other replicas."""
        self.scalings.labels(backend=cluster, direction="up" if after > before else "down").inc()

    def count_report(self, outcome: ReportOutcome) -> None:
        """One report came in."""
        self.reports[outcome].inc()


class WorldCollector(Collector):
    """Gauges of what there is, read when somebody asks."""

    def __init__(self, world: World, queue: DirtyQueue[ObjectKey]) -> None:
        self._world = world
        self._queue = queue

    def collect(self) -> Iterator[Metric]:
        """The gauges."""
        world = self._world
        state = world.state
        yield _gauge("snapshot_version", "Counter part of the snapshot's version.", float(state.version.rpartition(".")[2] or 0))
        yield _gauge("snapshot_resources", "Resources in the snapshot.", len(state.resources))
        yield _gauge("problems", "Problems in documents.", len(world.store.problems()))
        yield _gauge("queue_ready", "Objects that wait for a look.", self._queue.info()["ready"])
        yield _gauge("queue_failing", "Objects whose last look failed.", len(world.failures))
        roles = Tally(node.node.role.value for node in world.nodes.values())
        yield _labelled("proxies", "Connected proxies.", "role", dict(roles))
        yield _gauge(
            "proxies_refusing", "Proxies that refuse the snapshot.", sum(n.refusal is not None for n in world.nodes.values())
        )
        pressures = {name: level for name, level in world.pressures.items() if level is not None}
        yield _labelled("backend_pressure_ratio", "Pressure on a backend; 1 is the bound.", "backend", pressures)
        totals = {}
        for name in world.clusters():
            endpoints = world.endpoints(name)
            totals[name] = float(len(endpoints.endpoints)) if endpoints is not None else 0.0
        yield _labelled("backend_endpoints", "Endpoints of a backend.", "backend", totals)
        factors = GaugeMetricFamily(
            "spillway_operator_weight_factor", "Effective over declared weight, where below 1.", labels=("route", "rule", "backend")
        )
        for (route, rule), by_cluster in world.published_factors.items():
            for cluster, factor in by_cluster.items():
                if factor != 1.0:
                    factors.add_metric((route, rule, cluster), factor)
        yield factors
        yield from _scaling(world)


def _scaling(world: World) -> Iterator[Metric]:
    """What there is, should be and is needed, where replicas are scaled; and what tokens cost."""
    scaled = world.scaled
    measured = {name: each for name, each in scaled.items() if each.valid}
    yield _labelled(
        "backend_replicas", "Replicas that are ready.", "backend", {name: each.current for name, each in scaled.items()}
    )
    yield _labelled(
        "backend_replicas_desired",
        "Replicas that there should be.",
        "backend",
        {name: each.desired for name, each in scaled.items()},
    )
    needed = {name: max(each.need.flow or 0.0, each.need.backlog or 0.0) for name, each in measured.items()}
    yield _labelled("backend_replicas_needed", "Replicas that the load takes at this moment, not rounded.", "backend", needed)
    asked = {name: each.observed.tokens_per_second_asked or 0.0 for name, each in measured.items()}
    yield _labelled("backend_asked_tokens_per_second", "Tokens asked for each second, prompts and answers.", "backend", asked)
    held = {name: each.observed.held for name, each in scaled.items()}
    yield _labelled("backend_held_requests", "Requests that wait for a first replica.", "backend", held)
    learned = {name: each.learned for name, each in world.throughputs.items() if each.learned is not None}
    text = "Tokens that a replica does in a second when it has all it can do."
    yield _labelled("backend_replica_tokens_per_second", text, "backend", learned)
    paid = {name: price for name, each in world.spending.items() if (price := each.per_million_tokens) is not None}
    yield _labelled("backend_cost_per_million_tokens", "What a million tokens cost, as served.", "backend", paid)


class StreamCollector(Collector):
    """What the carrier of snapshots counts, from its `info()`."""

    _COUNTERS = (
        ("updates_total", "stream_updates", "Updates sent to proxies."),
        ("update_bytes_total", "stream_update_bytes", "Bytes of updates sent to proxies."),
        ("opened_total", "stream_connections", "Streams that proxies opened."),
    )

    def __init__(self, info: Callable[[], Mapping[str, Any]]) -> None:
        self._info = info

    def collect(self) -> Iterator[Metric]:
        """The counters."""
        info = self._info()
        for key, name, text in self._COUNTERS:
            yield CounterMetricFamily(f"spillway_operator_{name}", text, value=info.get(key, 0))
        for key, name, text, label in (
            ("events_total", "stream_messages", "Messages from proxies, by kind.", "kind"),
            ("closed_total", "stream_closes", "Streams that the operator closed, by reason.", "reason"),
        ):
            family = CounterMetricFamily(f"spillway_operator_{name}", text, labels=(label,))
            for value, count in info.get(key, {}).items():
                family.add_metric((value,), count)
            yield family


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"spillway_operator_{name}", text, value=value)


def _labelled(name: str, text: str, label: str, values: dict[str, float] | dict[str, int]) -> Metric:
    family = GaugeMetricFamily(f"spillway_operator_{name}", text, labels=(label,))
    for key, value in values.items():
        family.add_metric((key,), value)
    return family
