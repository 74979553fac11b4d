"""The status pass: facts -> conditions and figures -> the sink.

A pass looks at every object, because any of them may be touched by a proxy that came or went; it is asked for by whatever
changes, and at least once a second for the load figures. What differs is handed to the sink by the write policy: conditions,
counts and generations at once, figures that move with the load at most once in `figures_interval_seconds` an object.

A sink takes statuses and never raises; one that talks to an API server queues by itself.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Protocol

from spillway_operator.api import (
    BackendLoad,
    BackendStatus,
    BackendSummary,
    EndpointCounts,
    MeasuredCost,
    ModelRoute,
    ObjectKey,
    ProxyCounts,
    ReplicaCounts,
    RouteBackend,
    RouteStatus,
    RouteSummary,
    Traffic,
    condition_of,
)
from spillway_operator.api.route import MAX_LAGGING_NAMED
from spillway_operator.loads.figures import NodeDiversion, NodeProblem, TrafficRates
from spillway_operator.policies import backend as backend_policies
from spillway_operator.policies import reasons
from spillway_operator.policies import route as route_policies
from spillway_operator.policies.conditions import Verdict, is_true, settle
from spillway_operator.policies.facts import RouteFacts
from spillway_operator.reconcile import gather
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.store import BACKEND, ROUTE, Entry, Status, Store

_log = logging.getLogger(__name__)


class StatusSink(Protocol):
    """Where statuses go."""

    def write(self, key: ObjectKey, status: Status) -> None:
        """The status of an object is this. Called only when it differs from the one before."""


class StoreSink:
    """Standalone: statuses are kept in the store and served from there."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def write(self, key: ObjectKey, status: Status) -> None:
        """Keep it."""
        self._store.set_status(key, status)


@dataclass(slots=True)
class _Written:
    status: Status
    at: float


class StatusPass:
    """Computes statuses and lets those that are worth a write through."""

    def __init__(
        self,
        *,
        sink: StatusSink,
        wall_clock: Callable[[], datetime],
        figures_interval_seconds: float,
        low_pressure: float,
    ) -> None:
        self._sink = sink
        self._wall_clock = wall_clock
        self._interval_seconds = figures_interval_seconds
        self._low_pressure = low_pressure
        self._written: dict[ObjectKey, _Written] = {}
        self.writes = 0

    def run(self, world: World, now: float) -> int:
        """One pass; returns how many statuses were written."""
        moment = self._wall_clock().replace(microsecond=0)  # as it is kept and shown
        problems = world.loads.problems()
        demand = world.loads.demand(now)
        diversions = world.loads.diversions(now)
        ready: dict[ObjectKey, bool] = {}
        seen = set()
        before = self.writes
        for entry in world.store.entries(BACKEND):
            seen.add(entry.key)
            with _alone(entry.key):
                backend = self._backend(world, entry, problems.get(wire_name(entry.key), ()), demand, now, moment)
                ready[entry.key] = is_true(backend.conditions, reasons.READY)
                self._offer(entry.key, backend, now)
        for entry in world.store.entries(ROUTE):
            seen.add(entry.key)
            with _alone(entry.key):
                passed = diversions.get(wire_name(entry.key), ())
                self._offer(entry.key, self._route(world, entry, ready, passed, now, moment), now)
        for gone in self._written.keys() - seen:
            del self._written[gone]
        return self.writes - before

    def adopt(self, key: ObjectKey, status: Status, now: float) -> None:
        """The object has this status already, from whoever wrote it: conditions go on from there."""
        self._written[key] = _Written(status=status, at=now)

    def forget(self, key: ObjectKey) -> None:
        """The object is gone; another one of its name begins anew."""
        self._written.pop(key, None)

    # -- write policy

    def _offer(self, key: ObjectKey, status: Status, now: float) -> None:
        last = self._written.get(key)
        if last is not None:
            if last.status == status:
                return
            if _lasting(last.status) == _lasting(status) and now - last.at < self._interval_seconds:
                return
        _tell(key, last.status if last is not None else None, status)
        self._written[key] = _Written(status=status, at=now)
        self._sink.write(key, status)
        self.writes += 1

    def _standing(self, key: ObjectKey) -> Status | None:
        last = self._written.get(key)
        return None if last is None else last.status

    # -- backends

    def _backend(
        self,
        world: World,
        entry: Entry,
        problems: tuple[NodeProblem, ...],
        demand: dict[str, int] | None,
        now: float,
        moment: datetime,
    ) -> BackendStatus:
        name = wire_name(entry.key)
        standing = self._standing(entry.key)
        before = standing if isinstance(standing, BackendStatus) else BackendStatus()
        traffic = world.loads.backend_traffic(name, now)
        found = gather.backend_facts(world, entry, before, problems, traffic, self._low_pressure, now)
        endpoints = EndpointCounts(ready=backend_policies.ready_count(found), total=len(found.endpoints))
        replicas = _replicas(world, name, before)
        return BackendStatus(
            observed_generation=entry.generation,
            conditions=settle(before.conditions, backend_policies.decide(found), generation=entry.generation, now=moment),
            endpoints=endpoints,
            replicas=replicas,
            load=_load(world, name, traffic, demand, now),
            cost=_cost(world, name),
            schedule=scaled.schedule if (scaled := world.scaled.get(name)) is not None else "",
            summary=BackendSummary.of(endpoints, replicas),
        )

    # -- routes

    def _route(
        self,
        world: World,
        entry: Entry,
        ready: dict[ObjectKey, bool],
        diversions: tuple[NodeDiversion, ...],
        now: float,
        moment: datetime,
    ) -> RouteStatus:
        standing = self._standing(entry.key)
        before = standing if isinstance(standing, RouteStatus) else RouteStatus()
        found, synced = gather.route_facts(world, entry, before, ready, diversions)
        proxies = ProxyCounts(
            synced=len(synced.synced),
            total=len(synced.synced) + len(synced.lagging),
            lagging=synced.lagging[:MAX_LAGGING_NAMED],
        )
        backends = _backends(found, world.loads.requests(wire_name(entry.key), now))
        traffic = _traffic(world.loads.route_traffic(wire_name(entry.key), now), reported=bool(world.nodes))
        return RouteStatus(
            observed_generation=entry.generation,
            conditions=settle(before.conditions, route_policies.decide(found), generation=entry.generation, now=moment),
            proxies=proxies,
            backends=backends,
            traffic=traffic,
            schedule=world.open_schedules.get(entry.key, ""),
            summary=RouteSummary.of(entry.object.spec, backends, proxies, traffic, _active(found))
            if isinstance(entry.object, ModelRoute)
            else RouteSummary(),
        )

    def info(self) -> dict[str, Any]:
        """Counts."""
        return {"objects": len(self._written), "writes": self.writes, "figures_interval_seconds": self._interval_seconds}


_TOLD_AT_ONCE: Final = (reasons.ACCEPTED, reasons.READY)


def _tell(key: ObjectKey, before: Status | None, after: Status) -> None:
    """One log line for each object that is accepted or ready, falls back or spills, or no longer."""
    for name in (*_TOLD_AT_ONCE, reasons.FALLBACK_ACTIVE, reasons.SPILL_ACTIVE):
        old = condition_of(before.conditions, name) if before is not None else None
        new = condition_of(after.conditions, name)
        if new is not None and (old is None or old.status != new.status) and (old is not None or name in _TOLD_AT_ONCE):
            good = (new.status == Verdict.TRUE.value) is (name in _TOLD_AT_ONCE)
            level = logging.INFO if old is None or good else logging.WARNING
            _log.log(level, "status: %s: %s=%s %s: %s", key, name, new.status, new.reason, new.message)


@contextlib.contextmanager
def _alone(key: ObjectKey) -> Iterator[None]:
    """What goes wrong with the status of one object stays with it: its status stands as it was."""
    try:
        yield
    except Exception:  # noqa: BLE001 - it is this object's trouble only
        _log.exception("status: %s failed", key)


def _lasting(status: Status) -> tuple[Any, ...]:
    """What must be written at once: everything but figures that move with the load."""
    if isinstance(status, BackendStatus):
        return (status.observed_generation, status.conditions, status.endpoints, status.summary.replicas, status.schedule)
    weights = tuple((backend.name, backend.ready, backend.active) for backend in status.backends)
    return (status.observed_generation, status.conditions, status.proxies, weights, status.schedule)


def _load(world: World, name: str, traffic: TrafficRates, demand: dict[str, int] | None, now: float) -> BackendLoad:
    """Load figures: from inbound listeners, or from what routers have under way where there are none."""
    endpoints = world.endpoints(name)
    listed = endpoints.endpoints if endpoints is not None else ()
    watched = [endpoint.id for endpoint in listed if endpoint.inbound]
    if not watched:
        running = demand.get(name, 0) if demand is not None and listed else None
        tokens = round(traffic.output_tokens_per_second) if traffic.requests else None
        return BackendLoad(running=running, tokens_per_second=tokens)
    load = world.loads.backend(watched, now)
    if not load.known:
        return BackendLoad()
    return BackendLoad(
        queue_depth=load.queue_depth,
        running=load.running,
        gpu_utilization_percent=_percent(load.gpu_ratio),
        kv_cache_percent=_percent(load.kv_cache_ratio),
        tokens_per_second=None if load.tokens_per_second is None else round(load.tokens_per_second),
    )


def _replicas(world: World, name: str, before: BackendStatus) -> ReplicaCounts | None:
    scaled = world.scaled.get(name)
    if scaled is None:
        return None
    if scaled.facts.reason == reasons.TARGET_UNKNOWN and before.replicas is not None:
        return before.replicas  # as the leader before left it
    found = world.throughputs.get(name)
    learned = found.learned if found is not None else None
    return ReplicaCounts(
        current=scaled.current, desired=scaled.desired, tokens_per_second=None if learned is None else round(learned)
    )


def _cost(world: World, name: str) -> MeasuredCost | None:
    spending = world.spending.get(name)
    price = spending.per_million_tokens if spending is not None else None
    return None if price is None else MeasuredCost(per_million_tokens=f"{price:.2f}" if price >= 0.1 else f"{price:.3g}")


def _percent(ratio: float | None) -> int | None:
    return None if ratio is None else round(100 * ratio)


def _backends(found: RouteFacts, routed: dict[str, int]) -> tuple[RouteBackend, ...]:
    lately = {cluster.partition("/")[2]: count for cluster, count in routed.items()}
    return tuple(
        RouteBackend(name=name, weight_percent=round(100 * share), ready=ready, active=active)
        for name, (share, ready, active) in route_policies.backend_shares(found.rules, lately).items()
    )


def _active(found: RouteFacts) -> list[str]:
    """The rules that send requests past a priority, each with the cause."""
    return [f"{rule.name}:{passed.cause}" for rule in found.rules for passed in rule.passed]


def _traffic(rates: TrafficRates, *, reported: bool) -> Traffic:
    if not reported and not rates.requests:
        return Traffic()
    ttft = rates.ttft_p95_seconds
    return Traffic(
        requests_per_second=f"{rates.requests_per_second:.1f}",
        error_percent=f"{100 * rates.error_ratio:.1f}",
        ttft_p95_milliseconds=None if ttft is None else round(1000 * ttft),
    )
