"""The load store: the last report of each proxy, and counters over a sliding window.

Identity. A report counts for the node that sent it and, as a load, for the endpoint of the same id: a proxy cannot speak for
another's endpoint. Order is by boot id and sequence: within one boot the sequence must rise, a different boot id replaces
the node's picture, and a boot id that was replaced never comes back (a frame of the old process that arrives late).

Age is measured on the receiver's monotonic clock, from the arrival. A load older than three report intervals is *stale*: it
is handed out with that mark, and means neither 0 nor full. Nodes that are gone are forgotten (`retain`), series without
traffic expire (`sweep`), and the number of series is capped, so memory is bounded by what is connected and declared.

`problems`, `demand` and `diversions` of a report are gauges: a report states all that hold at that moment.
"""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

from spillway_operator.loads.figures import (
    BackendLoad,
    ClusterDemand,
    EndpointLoad,
    NodeDiversion,
    NodeProblem,
    TrafficRates,
    runs_at_once,
    sum_loads,
)
from spillway_operator.loads.windows import BUCKETS, WINDOW_SLOTS, SumWindow, TrafficWindow, rates
from spillway_wire.loads import ClusterProblem, Demand, Diversion, Load
from spillway_wire.messages import Node, Report
from spillway_wire.names import Role

SeriesKey = tuple[str, str, str]  # route, rule, cluster; rule and cluster are empty for what was refused before a choice

_OLD_BOOTS = 4  # boot ids remembered as replaced, a node


class ReportOutcome(enum.StrEnum):
    """What became of a report."""

    ACCEPTED = "accepted"
    FOREIGN = "foreign_boot"  # the report's boot id is not the one its node said hello with
    REPLACED = "replaced_boot"  # from a process that another one of the same id has replaced
    OUT_OF_ORDER = "out_of_order"  # sequence not above the last
    MALFORMED = "malformed"  # a histogram with another number of buckets
    OVERFLOW = "overflow"  # accepted but for series beyond the cap


@dataclass(slots=True)
class _NodeRecord:
    boot_id: str
    sequence: int = -1
    load: Load | None = None
    load_at: float = 0.0
    runs: int | None = None  # what its engine runs at once, as far as is known
    heard_at: float = 0.0
    demand: tuple[Demand, ...] = ()
    problems: tuple[ClusterProblem, ...] = ()
    diversions: tuple[Diversion, ...] = ()
    old_boots: list[str] = field(default_factory=list)


class LoadStore:
    """Reports in, figures out. One event loop, no I/O; the caller passes monotonic `now`."""

    def __init__(
        self,
        *,
        interval_seconds: float = 1.0,
        stale_intervals: int = 3,
        max_series: int = 50_000,
        on_outcome: Callable[[ReportOutcome], None] | None = None,
    ) -> None:
        self._stale_seconds = interval_seconds * stale_intervals
        self._max_series = max_series
        self._on_outcome = on_outcome
        self._nodes: dict[str, _NodeRecord] = {}
        self._series: dict[SeriesKey, TrafficWindow] = {}
        self._by_route: dict[str, dict[SeriesKey, TrafficWindow]] = {}
        self._by_cluster: dict[str, dict[SeriesKey, TrafficWindow]] = {}
        self._arrived: dict[str, SumWindow] = {}  # tokens, by cluster
        self._outcomes: Counter[ReportOutcome] = Counter()

    # -- reports in

    def accept(self, node: Node, report: Report, now: float) -> ReportOutcome:
        """Take one report; refused ones change nothing but the count."""
        outcome = self._accept(node, report, now)
        self._outcomes[outcome] += 1
        if self._on_outcome is not None:
            self._on_outcome(outcome)
        return outcome

    def _accept(self, node: Node, report: Report, now: float) -> ReportOutcome:
        if report.boot_id != node.boot_id:
            return ReportOutcome.FOREIGN
        record = self._nodes.get(node.id)
        if record is not None and record.boot_id != report.boot_id:
            if report.boot_id in record.old_boots:
                return ReportOutcome.REPLACED
        elif record is not None and report.sequence <= record.sequence:
            return ReportOutcome.OUT_OF_ORDER
        if any(entry.ttft and len(entry.ttft) != BUCKETS for entry in report.traffic):
            return ReportOutcome.MALFORMED
        if record is None or record.boot_id != report.boot_id:
            old = [] if record is None else [*record.old_boots, record.boot_id][-_OLD_BOOTS:]
            record = self._nodes[node.id] = _NodeRecord(boot_id=report.boot_id, old_boots=old)
        record.sequence = report.sequence
        record.heard_at = now
        if report.load is not None and node.role is Role.SIDECAR:  # a gateway has no endpoint to speak of
            record.runs = runs_at_once(record.runs, record.load, report.load)
            record.load = report.load
            record.load_at = now
        record.demand = report.demand
        record.problems = report.problems
        record.diversions = report.diversions
        for entry in report.demand:
            if entry.arrived_tokens and (entry.cluster in self._arrived or len(self._arrived) < self._max_series):
                self._arrived.setdefault(entry.cluster, SumWindow()).add(now, entry.arrived_tokens)
        return self._count(report, now)

    def _count(self, report: Report, now: float) -> ReportOutcome:
        outcome = ReportOutcome.ACCEPTED
        for traffic in report.traffic:
            window = self._window((traffic.route, traffic.rule, traffic.cluster))
            if window is None:
                outcome = ReportOutcome.OVERFLOW
            else:
                window.add(now, traffic)
        for refused in report.refused:
            window = self._window((refused.route, "", ""))
            if window is None:
                outcome = ReportOutcome.OVERFLOW
            else:
                window.add_refused(now, refused.requests)
        return outcome

    def _window(self, key: SeriesKey) -> TrafficWindow | None:
        window = self._series.get(key)
        if window is None:
            if len(self._series) >= self._max_series:
                return None
            window = self._series[key] = TrafficWindow()
            self._by_route.setdefault(key[0], {})[key] = window
            self._by_cluster.setdefault(key[2], {})[key] = window
        return window

    # -- forgetting

    def retain(self, node_ids: Collection[str]) -> None:
        """Forget every node that is not in `node_ids` (the connected ones)."""
        for gone in self._nodes.keys() - set(node_ids):
            del self._nodes[gone]

    def sweep(self, now: float) -> None:
        """Forget series that had no traffic for a whole window."""
        for key in [key for key, window in self._series.items() if window.idle(now)]:
            del self._series[key]
            for index, name in ((self._by_route, key[0]), (self._by_cluster, key[2])):
                series = index[name]
                del series[key]
                if not series:
                    del index[name]

        for cluster in [name for name, window in self._arrived.items() if now - window.touched > WINDOW_SLOTS + 1]:
            del self._arrived[cluster]

    # -- figures out

    def endpoint(self, endpoint_id: str, now: float) -> EndpointLoad | None:
        """The last load that this endpoint's own sidecar reported, with its age; None if there is none."""
        record = self._nodes.get(endpoint_id)
        if record is None or record.load is None:
            return None
        age = max(0.0, now - record.load_at)
        return EndpointLoad(load=record.load, age_seconds=age, stale=age >= self._stale_seconds, runs=record.runs)

    def backend(self, endpoint_ids: Iterable[str], now: float) -> BackendLoad:
        """Sums over the endpoints of one backend."""
        return sum_loads([self.endpoint(endpoint_id, now) for endpoint_id in endpoint_ids])

    def demand(self, now: float) -> dict[str, int] | None:
        """Requests that all fresh routers together have under way, by cluster; None when no router reports at all."""
        asked = self.asked(now)
        return None if asked is None else {cluster: each.in_flight for cluster, each in asked.items() if each.in_flight}

    def asked(self, now: float) -> dict[str, ClusterDemand] | None:
        """What all fresh routers together are asked for, by cluster; None when no router reports at all."""
        totals: dict[str, list[int]] = {cluster: [0, 0, 0] for cluster in self._arrived}
        unheard: set[str] = set()
        heard = False
        for record in self._nodes.values():
            if now - record.heard_at < self._stale_seconds:
                heard = True
                for entry in record.demand:
                    total = totals.setdefault(entry.cluster, [0, 0, 0])
                    total[0] += entry.in_flight
                    total[1] += entry.held
                    total[2] += entry.held_tokens
            else:
                unheard.update(entry.cluster for entry in record.demand)
                for entry in record.demand:
                    totals.setdefault(entry.cluster, [0, 0, 0])
        if not heard:
            return None
        return {
            cluster: ClusterDemand(
                in_flight=in_flight,
                held=held,
                held_tokens=held_tokens,
                arrived_tokens_per_second=self._arrived[cluster].per_second(now) if cluster in self._arrived else 0.0,
                partial=cluster in unheard,
            )
            for cluster, (in_flight, held, held_tokens) in totals.items()
        }

    def problems(self) -> dict[str, tuple[NodeProblem, ...]]:
        """What proxies say stands between them and a cluster: by cluster, in order of node id."""
        found: dict[str, list[NodeProblem]] = {}
        for node_id in sorted(self._nodes):
            for problem in self._nodes[node_id].problems:
                entry = NodeProblem(node=node_id, reason=problem.reason, message=problem.message)
                found.setdefault(problem.cluster, []).append(entry)
        return {cluster: tuple(problems) for cluster, problems in found.items()}

    def diversions(self, now: float) -> dict[str, tuple[NodeDiversion, ...]]:
        """What fresh routers send past a priority: by route, in order of node id."""
        found: dict[str, list[NodeDiversion]] = {}
        for node_id, record in sorted(self._nodes.items()):
            if record.diversions and now - record.heard_at < self._stale_seconds:
                for each in record.diversions:
                    entry = NodeDiversion(node_id, each.rule, each.priority, each.cause, each.message)
                    found.setdefault(each.route, []).append(entry)
        return {route: tuple(diversions) for route, diversions in found.items()}

    def route_traffic(self, route: str, now: float) -> TrafficRates:
        """All that clients asked of a route, refusals included."""
        return rates(list(self._by_route.get(route, {}).values()), now)

    def backend_traffic(self, cluster: str, now: float) -> TrafficRates:
        """All that routers sent to a backend, whatever the route."""
        return rates(list(self._by_cluster.get(cluster, {}).values()), now) if cluster else TrafficRates()

    def requests(self, route: str, now: float) -> dict[str, int]:
        """Finished requests of a route by the cluster that they reached."""
        found: Counter[str] = Counter()
        for (_, _, cluster), window in self._by_route.get(route, {}).items():
            if cluster and (count := window.requests(now)):
                found[cluster] += count
        return dict(found)

    def info(self) -> dict[str, Any]:
        """Sizes and counts since the start."""
        return {
            "nodes": len(self._nodes),
            "series": len(self._series),
            "stale_after_seconds": self._stale_seconds,
            "reports": {outcome.value: self._outcomes[outcome] for outcome in ReportOutcome},
        }
