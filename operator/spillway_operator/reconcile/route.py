"""One route: its resource in the snapshot; and one namespace: which route holds which model name."""

from __future__ import annotations

from spillway_operator.api import ModelRoute, ObjectKey
from spillway_operator.policies.route import conflicts
from spillway_operator.reconcile import schedules, weights
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.translate import route_of, wire_name
from spillway_operator.store import ROUTE


def reconcile(world: World, key: ObjectKey) -> None:
    """Bring the drafts of one route in line with the store and with the claims of its namespace."""
    name = wire_name(key)
    entry = world.store.get(key)
    if entry is None or not isinstance(entry.object, ModelRoute) or key.name in world.conflicts.get(key.namespace, {}):
        world.drop_draft(("route", name))
        world.drop_draft(("weights", name))
        world.open_schedules.pop(key, None)
        return
    route = schedules.settle(world, entry.object)
    world.set_draft(route_of(route))
    weights.redraft(world, route)


def reconcile_claims(world: World, namespace: str) -> list[ObjectKey]:
    """Settle who holds the model names of a namespace; returns the routes for which the outcome differs."""
    before = world.conflicts.get(namespace, {})
    after = conflicts(
        (entry.age, entry.key.name, entry.object.spec.models)
        for entry in world.store.entries(ROUTE, namespace)
        if isinstance(entry.object, ModelRoute)
    )
    if after:
        world.conflicts[namespace] = after
    else:
        world.conflicts.pop(namespace, None)
    return [
        ObjectKey(ROUTE, namespace, name) for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)
    ]
