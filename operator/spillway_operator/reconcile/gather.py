"""Gather: from the world to the plain facts that policies and status figures are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from spillway_operator.api import BackendStatus, ModelBackend, ModelRoute, ObjectKey, RouteRule, RouteStatus, condition_of
from spillway_operator.loads.figures import NodeDiversion, NodeProblem, TrafficRates
from spillway_operator.policies import facts, reasons
from spillway_operator.policies.conditions import Verdict, is_true
from spillway_operator.reconcile.backend import refused_host
from spillway_operator.reconcile.schedules import standing as standing_route
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.ports import Synced
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.store import BACKEND, Entry
from spillway_wire.messages import Fault
from spillway_wire.names import DiversionCause
from spillway_wire.snapshot import Endpoint, ResourceKey

_CAUSES: Final = frozenset(cause.value for cause in DiversionCause)  # others are of a later release, which no reason here is for


def backend_facts(
    world: World,
    entry: Entry,
    standing: BackendStatus,
    complaints: tuple[NodeProblem, ...],
    traffic: TrafficRates,
    low_pressure: float,
    now: float,
) -> facts.BackendFacts:
    """Facts of one backend; `standing` is its status so far."""
    name = wire_name(entry.key)
    endpoints = world.endpoints(name)
    return facts.BackendFacts(
        in_force=world.in_force("cluster", name),
        in_pods=isinstance(entry.object, ModelBackend) and entry.object.spec.pods is not None,
        endpoints=tuple(endpoint_facts(world, endpoint, now) for endpoint in endpoints.endpoints) if endpoints is not None else (),
        invalid=invalid(entry),
        refused_host=refused_host(world, entry.object) if isinstance(entry.object, ModelBackend) else None,
        failure=world.failures.get(entry.key),
        complaints=tuple(facts.Complaint(node=c.node, reason=c.reason, message=c.message) for c in complaints),
        proxies=sum(sync.node.namespace in {"", entry.key.namespace} for sync in world.nodes.values()),
        pressure=world.pressures.get(name),
        was_saturated=is_true(standing.conditions, reasons.SATURATED),
        low_pressure=low_pressure,
        recent_requests=traffic.attempts,
        error_ratio=traffic.failed_ratio,
        scaling=_scaling(world, name, standing),
    )


def _scaling(world: World, name: str, standing: BackendStatus) -> facts.ScalingFacts | None:
    """Where scaling stands; while a new leader has not read the target yet, where the one before left it."""
    scaled = world.scaled.get(name)
    if scaled is None:
        return None
    before = condition_of(standing.conditions, reasons.SCALING_ACTIVE)
    if scaled.facts.reason != reasons.TARGET_UNKNOWN or before is None or standing.replicas is None:
        return scaled.facts
    return facts.ScalingFacts(before.reason, active=before.status == Verdict.TRUE.value, desired=standing.replicas.desired)


def invalid(entry: Entry) -> str | None:
    """What is wrong with the latest document, all of it; None where it is good."""
    return "; ".join(str(problem) for problem in entry.problems) or None


def endpoint_facts(world: World, endpoint: Endpoint, now: float) -> facts.EndpointFacts:
    """Facts of one endpoint."""
    if not endpoint.inbound:
        return facts.EndpointFacts(id=endpoint.id, inbound=False, draining=endpoint.draining)
    load = world.loads.endpoint(endpoint.id, now)
    fresh = load is not None and not load.stale
    return facts.EndpointFacts(
        id=endpoint.id,
        inbound=True,
        connected=endpoint.id in world.nodes,
        engine_up=load.load.engine_up if load is not None and fresh else None,
        draining=endpoint.draining or (load is not None and fresh and load.load.draining),
    )


def route_facts(
    world: World,
    entry: Entry,
    standing: RouteStatus,
    ready_backends: Mapping[ObjectKey, bool],
    diversions: tuple[NodeDiversion, ...] = (),
) -> tuple[facts.RouteFacts, Synced]:
    """Facts of one route, and the sync they were made from; `ready_backends` is this pass's outcome for backends."""
    route = entry.object
    name = wire_name(entry.key)
    in_force = world.in_force("route", name)
    synced = Synced()
    rules: tuple[facts.RuleFacts, ...] = ()
    if isinstance(route, ModelRoute):
        rules = _rules(world, standing_route(world, route), ready_backends, diversions)
        synced = world.publisher.synced(_content(world, route)) if in_force else Synced()
    return (
        facts.RouteFacts(
            in_force=in_force,
            rules=rules,
            invalid=invalid(entry),
            failure=world.failures.get(entry.key),
            conflicts=world.conflicts.get(entry.key.namespace, {}).get(entry.key.name, ()),
            synced=synced.synced,
            lagging=synced.lagging,
            refusals=_refusals(world, name, synced),
            was_ready=is_true(standing.conditions, reasons.READY),
        ),
        synced,
    )


def _content(world: World, route: ModelRoute) -> list[ResourceKey]:
    """What a proxy must run for the route to be programmed there: the route and the clusters it leads to."""
    namespace = route.metadata.namespace
    clusters = {f"{namespace}/{ref.name}" for rule in route.spec.rules for ref in rule.backend_refs}
    return [("route", wire_name(route.key)), *(("cluster", name) for name in sorted(clusters) if world.in_force("cluster", name))]


def _rules(
    world: World, route: ModelRoute, ready_backends: Mapping[ObjectKey, bool], diversions: tuple[NodeDiversion, ...]
) -> tuple[facts.RuleFacts, ...]:
    weights = world.weights(route)
    corrected = {rule.rule: rule.weights for rule in weights.rules} if weights is not None else {}
    namespace = route.metadata.namespace
    return tuple(
        facts.RuleFacts(
            name=rule.name,
            refs=tuple(
                facts.RefFacts(
                    backend=ref.name,
                    state=_state(world, ObjectKey(BACKEND, namespace, ref.name)),
                    ready=ready_backends.get(ObjectKey(BACKEND, namespace, ref.name), False),
                    priority=ref.priority,
                    weight=corrected.get(rule.name, {}).get(f"{namespace}/{ref.name}", float(ref.weight)),
                    currency=_currency(world, f"{namespace}/{ref.name}"),
                )
                for ref in rule.backend_refs
            ),
            falls_back=rule.fallback is not None,
            spills=rule.spill is not None,
            by_cost=(scheduling := rule.scheduling or route.spec.scheduling) is not None and scheduling.by_cost,
            passed=_passed(rule, diversions),
        )
        for rule in route.spec.rules
    )


def _currency(world: World, cluster: str) -> str | None:
    backend = world.backend(cluster)
    return backend.spec.cost.currency if backend is not None and backend.spec.cost is not None else None


def _passed(rule: RouteRule, diversions: tuple[NodeDiversion, ...]) -> tuple[facts.Passed, ...]:
    """The priorities that proxies send requests past, each with the word of the first proxy that does."""
    declared = rule.fallback is not None or rule.spill is not None  # a proxy that runs an earlier version may say otherwise
    found: dict[tuple[int, str], list[NodeDiversion]] = {}
    for each in diversions:
        if declared and each.rule == rule.name and each.cause in _CAUSES:
            found.setdefault((each.priority, each.cause), []).append(each)
    return tuple(facts.Passed(priority, cause, told[0].message, len(told)) for (priority, cause), told in sorted(found.items()))


def _state(world: World, key: ObjectKey) -> facts.RefState:
    if world.in_force("cluster", wire_name(key)):
        return facts.RefState.RESOLVED
    return facts.RefState.NOT_FOUND if world.store.get(key) is None else facts.RefState.NOT_ACCEPTED


def _refusals(world: World, name: str, synced: Synced) -> tuple[facts.NodeRefusal, ...]:
    """Refusals by lagging proxies: the fault in this route if there is one, else the one that holds the whole update back."""
    found = []
    for node in synced.lagging:
        held = world.nodes.get(node)
        if held is not None and held.refusal is not None:
            own = [fault for fault in held.refusal.errors if _is_about(fault, name)]
            found.append(facts.NodeRefusal(node=node, fault=(own or list(held.refusal.errors))[0]))
    found.sort(key=lambda refusal: not _is_about(refusal.fault, name))
    return tuple(found)


def _is_about(fault: Fault, name: str) -> bool:
    place = f"route/{name}"
    return fault.path == place or fault.path.startswith((f"{place}.", f"{place}["))
