"""Counters of the data path: plain integers on slotted objects, bound once per backend, added to without a lock or a lookup.

Two readers share them. Prometheus reads totals at each scrape. The reporter drains: each time it gets what has come since the
time before, and totals stay as they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from spillway_wire.loads import TTFT_BUCKETS_SECONDS, BackendTraffic, RouteErrors

BUCKETS: Final[tuple[float, ...]] = TTFT_BUCKETS_SECONDS
_SIZE: Final = len(BUCKETS) + 1


class Histogram:
    """Counts per bucket of `TTFT_BUCKETS_SECONDS`, and the sum."""

    __slots__ = ("counts", "sum_seconds")

    def __init__(self) -> None:
        self.counts = [0] * _SIZE
        self.sum_seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Takes one duration in."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum_seconds += seconds


class BackendStats:
    """One rule's backend: requests by outcome, retries, tokens, time to first token and whole duration."""

    __slots__ = (
        "_marked",
        "_marked_ttft",
        "cluster",
        "diverted",
        "duration",
        "hedges",
        "input_tokens",
        "outcomes",
        "output_tokens",
        "retries",
        "route",
        "rule",
        "ttft",
    )

    def __init__(self, route: str, rule: str, cluster: str) -> None:
        self.route = route
        self.rule = rule
        self.cluster = cluster
        self.outcomes: dict[str, int] = {}
        self.diverted: dict[str, int] = {}  # requests that came past an earlier priority, by cause
        self.retries = 0
        self.hedges: dict[str, int] = {}  # by result: won, lost, failed
        self.input_tokens = 0
        self.output_tokens = 0
        self.ttft = Histogram()
        self.duration = Histogram()
        self._marked = (0, 0, 0, 0, 0)
        self._marked_ttft = [0] * _SIZE

    def divert(self, cause: str) -> None:
        """A request comes here past an earlier priority."""
        self.diverted[cause] = self.diverted.get(cause, 0) + 1

    def _totals(self, not_errors: frozenset[str]) -> tuple[int, int, int, int, int]:
        requests = sum(self.outcomes.values())
        errors = sum(count for outcome, count in self.outcomes.items() if outcome not in not_errors)
        return requests, errors, self.retries, self.input_tokens, self.output_tokens

    def traffic(self, not_errors: frozenset[str]) -> BackendTraffic | None:
        """What has come since the last call, or None when nothing has."""
        totals, marked = self._totals(not_errors), self._marked
        if totals == marked:
            return None
        counts, marked_ttft = list(self.ttft.counts), self._marked_ttft
        self._marked, self._marked_ttft = totals, counts
        requests, errors, retries, input_tokens, output_tokens = (new - old for new, old in zip(totals, marked, strict=True))
        return BackendTraffic(
            route=self.route,
            rule=self.rule,
            cluster=self.cluster,
            requests=requests,
            errors=errors,
            retries=retries,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            ttft=tuple(new - old for new, old in zip(counts, marked_ttft, strict=True)),
        )


class RouteRefusals:
    """Requests of one route that ended before a backend was chosen, by outcome. The route "" is for those without any."""

    __slots__ = ("_marked", "outcomes", "route")

    def __init__(self, route: str) -> None:
        self.route = route
        self.outcomes: dict[str, int] = {}
        self._marked = 0

    def refused(self) -> RouteErrors | None:
        """What has come since the last call."""
        total, marked = sum(self.outcomes.values()), self._marked
        self._marked = total
        return RouteErrors(self.route, total - marked) if total > marked else None


class TrafficStats:
    """All of a route listener's counters. Objects live as long as their route is in the snapshot, so that totals never go back."""

    def __init__(self, not_errors: Iterable[str]) -> None:
        self.backends: dict[tuple[str, str, str], BackendStats] = {}
        self.refusals: dict[str, RouteRefusals] = {}
        self._not_errors = frozenset(not_errors)

    def backend(self, route: str, rule: str, cluster: str) -> BackendStats:
        """The counters of one rule's backend, made on first use."""
        key = (route, rule, cluster)
        stats = self.backends.get(key)
        if stats is None:
            stats = self.backends[key] = BackendStats(route, rule, cluster)
        return stats

    def refuse(self, route: str, outcome: str) -> None:
        """Counts a request that reached no backend."""
        refusals = self.refusals.get(route)
        if refusals is None:
            refusals = self.refusals[route] = RouteRefusals(route)
        refusals.outcomes[outcome] = refusals.outcomes.get(outcome, 0) + 1

    def keep_only(self, routes: set[str]) -> None:
        """Forgets routes that are gone, so that their series go with them."""
        for key in [key for key in self.backends if key[0] not in routes]:
            del self.backends[key]
        for route in [route for route in self.refusals if route and route not in routes]:
            del self.refusals[route]

    def traffic(self) -> tuple[BackendTraffic, ...]:
        """Drains the counters."""
        return tuple(item for stats in self.backends.values() if (item := stats.traffic(self._not_errors)) is not None)

    def refused(self) -> tuple[RouteErrors, ...]:
        """Drains the refusals."""
        return tuple(item for refusals in self.refusals.values() if refusals.route and (item := refusals.refused()) is not None)
