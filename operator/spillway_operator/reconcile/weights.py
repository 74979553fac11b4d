"""The slow loop: pressures of backends -> factors of rules -> weights resources.

Every tick each cluster's pressure is read and smoothed, each rule's factors move on, and a weights resource goes into the
snapshot only when a factor moved by a meaningful step. A rule whose factors are all 1 has no entry, so at rest there are no
weights resources at all and nothing is published.

Pressure comes from the reports of inbound listeners. Where none stands before the endpoints (external servers, Services),
it is what routers say that they have under way there against the declared concurrency.
"""

from __future__ import annotations

from collections import Counter

from spillway_operator.api import ModelRoute, RouteRule
from spillway_operator.balancing.pressure import Occupancy, PressureBounds, pressure, smooth
from spillway_operator.balancing.weights import Share, WeightPolicy, effective, factors, next_courses, worth_publishing
from spillway_operator.reconcile.schedules import standing
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.store import ROUTE
from spillway_wire.snapshot import RuleWeights, Weights


def tick(
    world: World, now: float, dt_seconds: float, policy: WeightPolicy, bounds: PressureBounds, *, smoothing_seconds: float
) -> int:
    """One step of the loop over everything; returns how many routes got other weights."""
    read_pressures(world, now, dt_seconds, bounds, smoothing_seconds)
    changed = 0
    current = set()
    for entry in world.store.entries(ROUTE):
        route = entry.object
        if not isinstance(route, ModelRoute) or ("route", wire_name(route.key)) not in world.drafts:
            continue
        route = standing(world, route)
        moved = False
        for rule in route.spec.rules:
            declared = shares(route, rule)
            if not declared:
                continue
            key = (wire_name(route.key), rule.name)
            current.add(key)
            world.courses[key] = next_courses(declared, world.courses.get(key, {}), world.pressures, dt_seconds, policy)
            computed = world.factors[key] = factors(world.courses[key])
            if worth_publishing(world.published_factors.get(key, {}), computed, policy):
                world.published_factors[key] = computed
                moved = True
        if moved:
            redraft(world, route)
            changed += 1
    for gone in world.factors.keys() - current:
        del world.factors[gone], world.courses[gone]
        world.published_factors.pop(gone, None)
    return changed


def shares(route: ModelRoute, rule: RouteRule) -> dict[str, Share]:
    """The backends of a rule that share a priority with another one, as declared; the rest has nothing to balance."""
    priorities = Counter(ref.priority for ref in rule.backend_refs)
    return {
        f"{route.metadata.namespace}/{ref.name}": Share(weight=ref.weight, priority=ref.priority)
        for ref in rule.backend_refs
        if priorities[ref.priority] > 1
    }


def redraft(world: World, route: ModelRoute) -> None:
    """Put the route's published factors onto its declared weights; without any there is no resource."""
    name = wire_name(route.key)
    rules = []
    for rule in route.spec.rules:
        declared = shares(route, rule)
        published = world.published_factors.get((name, rule.name), {})
        if any(published.get(cluster, 1.0) != 1.0 for cluster in declared):
            rules.append(RuleWeights(rule=rule.name, weights=effective(declared, published)))
    if rules:
        world.set_draft(Weights(name=name, rules=tuple(rules)))
    else:
        world.drop_draft(("weights", name))


def read_pressures(world: World, now: float, dt_seconds: float, bounds: PressureBounds, smoothing_seconds: float) -> None:
    """Read and smooth the pressure of every cluster; forget those that are gone."""
    demand = world.loads.demand(now)
    world.pressures = {
        cluster: smooth(
            world.pressures.get(cluster), pressure(occupancy(world, cluster, demand, now), bounds), dt_seconds, smoothing_seconds
        )
        for cluster in world.clusters()
    }


def occupancy(world: World, cluster: str, demand: dict[str, int] | None, now: float) -> Occupancy:
    """What is known of a cluster's endpoints."""
    endpoints = world.endpoints(cluster)
    listed = endpoints.endpoints if endpoints is not None else ()
    watched = [endpoint.id for endpoint in listed if endpoint.inbound]
    if watched:
        load = world.loads.backend(watched, now)
        return Occupancy(
            total=load.total,
            known=load.known,
            in_flight=load.in_flight,
            queued=load.queued,
            engine_waiting=load.engine_waiting,
            capacity=load.capacity,
            kv_cache_ratio=load.kv_cache_ratio,
        )
    backend = world.backend(cluster)
    limit = backend.spec.limits.max_concurrency if backend is not None else 0
    return Occupancy(
        total=len(listed),
        known=0 if demand is None else len(listed),
        in_flight=0 if demand is None else demand.get(cluster, 0),
        queued=0,
        engine_waiting=0,
        capacity=limit * len(listed),
    )
