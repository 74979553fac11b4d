"""Prometheus metrics made from the data path's plain counters at scrape time. Series of routes that are gone go with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from spillway_sidecar.telemetry.stats import BUCKETS, Histogram, TrafficStats
from spillway_wire.loads import Diversion

_LABELS = ("route", "rule", "backend")


def _histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip(BUCKETS, histogram.counts, strict=False):
        total += count
        buckets.append((repr(bound), total))
    buckets.append(("+Inf", total + histogram.counts[-1]))
    family.add_metric(labels, buckets, sum_value=histogram.sum_seconds)


class TrafficCollector(Collector):
    """Families of a route listener."""

    def __init__(
        self, stats: TrafficStats, gauges: Callable[[], dict[str, float]], diversions: Callable[[], Iterable[Diversion]] = tuple
    ) -> None:
        self._stats = stats
        self._gauges = gauges
        self._diversions = diversions

    def collect(self) -> Iterable[Metric]:
        """One pass over the counters."""
        requests = CounterMetricFamily(
            "spillway_requests", "Requests that reached a backend, by outcome.", labels=[*_LABELS, "outcome"]
        )
        diverted = CounterMetricFamily(
            "spillway_diverted", "Requests that came here past an earlier priority, by cause.", labels=[*_LABELS, "cause"]
        )
        retries = CounterMetricFamily("spillway_retries", "Attempts after the first.", labels=_LABELS)
        tokens_in = CounterMetricFamily("spillway_input_tokens", "Prompt tokens of successful requests.", labels=_LABELS)
        tokens_out = CounterMetricFamily("spillway_output_tokens", "Generated tokens of successful requests.", labels=_LABELS)
        ttft = HistogramMetricFamily(
            "spillway_time_to_first_token_seconds", "From the request's end to the first byte of the reply's body.", labels=_LABELS
        )
        duration = HistogramMetricFamily("spillway_request_duration_seconds", "Whole time of successful requests.", labels=_LABELS)
        for stats in self._stats.backends.values():
            labels = [stats.route, stats.rule, stats.cluster]
            for outcome, count in stats.outcomes.items():
                requests.add_metric([*labels, outcome], count)
            for cause, count in stats.diverted.items():
                diverted.add_metric([*labels, cause], count)
            retries.add_metric(labels, stats.retries)
            tokens_in.add_metric(labels, stats.input_tokens)
            tokens_out.add_metric(labels, stats.output_tokens)
            _histogram(ttft, labels, stats.ttft)
            _histogram(duration, labels, stats.duration)
        refused = CounterMetricFamily(
            "spillway_refused", "Requests that reached no backend, by outcome.", labels=["route", "outcome"]
        )
        for refusals in self._stats.refusals.values():
            for outcome, count in refusals.outcomes.items():
                refused.add_metric([refusals.route, outcome], count)
        diverting = GaugeMetricFamily(
            "spillway_diverting", "1 while requests go past a priority.", labels=["route", "rule", "priority", "cause"]
        )
        for each in self._diversions():
            diverting.add_metric([each.route, each.rule, str(each.priority), each.cause], 1)
        yield from (requests, diverted, diverting, retries, tokens_in, tokens_out, ttft, duration, refused)
        for name, value in self._gauges().items():
            family = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            yield family(name, name.removeprefix("spillway_").replace("_", " ").capitalize() + ".", value=value)


class RecoveryCollector(Collector):
    """What was done about endpoints that fail or are late. `ejections` gives (backend, reason, count, out at present)."""

    def __init__(self, stats: TrafficStats, ejections: Callable[[], Iterable[tuple[str, str, int, int]]]) -> None:
        self._stats = stats
        self._ejections = ejections

    def collect(self) -> Iterable[Metric]:
        """One pass over the counters."""
        hedges = CounterMetricFamily(
            "spillway_hedges", "Requests sent to a second endpoint for a late first token, by result.", labels=[*_LABELS, "result"]
        )
        for stats in self._stats.backends.values():
            for result, count in stats.hedges.items():
                hedges.add_metric([stats.route, stats.rule, stats.cluster, result], count)
        ejections = CounterMetricFamily("spillway_ejections", "Ejections of endpoints, by reason.", labels=["backend", "reason"])
        ejected = GaugeMetricFamily(
            "spillway_ejected_endpoints", "Endpoints that are out, by reason.", labels=["backend", "reason"]
        )
        for backend, reason, count, out in self._ejections():
            ejections.add_metric([backend, reason], count)
            ejected.add_metric([backend, reason], out)
        yield from (hedges, ejections, ejected)


class HoldingCollector(Collector):
    """Requests that wait for a backend's first replica. `held` gives (backend, how many do, how many have)."""

    def __init__(self, held: Callable[[], Iterable[tuple[str, int, int]]]) -> None:
        self._held = held

    def collect(self) -> Iterable[Metric]:
        """One pass over the backends for which any request was held."""
        present = GaugeMetricFamily(
            "spillway_held_requests", "Requests that wait for a backend's first replica.", labels=["backend"]
        )
        total = CounterMetricFamily("spillway_held", "Requests that have waited for a backend's first replica.", labels=["backend"])
        for backend, held, so_far in self._held():
            present.add_metric([backend], held)
            total.add_metric([backend], so_far)
        yield from (present, total)


class InboundCollector(Collector):
    """Families of an inbound listener."""

    def __init__(
        self, gauges: Callable[[], dict[str, float | None]], outcomes: Callable[[], dict[str, int]], ttft: Histogram
    ) -> None:
        self._gauges = gauges
        self._outcomes = outcomes
        self._ttft = ttft

    def collect(self) -> Iterable[Metric]:
        """One pass over the counters. A gauge that is unknown has no sample."""
        requests = CounterMetricFamily(
            "spillway_inbound_requests", "Requests at the inbound listener, by outcome.", labels=["outcome"]
        )
        for outcome, count in self._outcomes().items():
            requests.add_metric([outcome], count)
        ttft = HistogramMetricFamily(
            "spillway_inbound_time_to_first_token_seconds", "From arrival to the engine's first byte.", labels=[]
        )
        _histogram(ttft, [], self._ttft)
        yield from (requests, ttft)
        for name, value in self._gauges().items():
            family = GaugeMetricFamily(f"spillway_inbound_{name}", name.replace("_", " ").capitalize() + ".")
            if value is not None:
                family.add_metric([], value)
            yield family
