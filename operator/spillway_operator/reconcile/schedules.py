"""Schedules: which of a route's is open, the route as it stands because of it, and the bounds that a backend's schedules make.

A route has its schedule's weights and scorers from the moment when it is looked at, and is looked at again within a second of
that changing. The time is read where it is asked for, so an operator that starts publishes the right weights at once.
"""

from __future__ import annotations

from datetime import datetime

from spillway_operator.api import ModelRoute, ObjectKey
from spillway_operator.api.scaling import Scaling
from spillway_operator.api.schedules import RouteSchedule, TimeWindow
from spillway_operator.reconcile.world import World
from spillway_operator.scaling.schedules import Bounds, ReplicaSchedule, Window, bounds, first_open
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.store import ROUTE


def tick(world: World) -> list[ObjectKey]:
    """Routes for which another schedule is open than when they were looked at."""
    moment = world.wall_clock()
    changed = []
    for entry in world.store.entries(ROUTE):
        route = entry.object
        if isinstance(route, ModelRoute) and route.spec.schedules and ("route", wire_name(entry.key)) in world.drafts:
            found = open_schedule(route, moment)
            if (found.name if found is not None else "") != world.open_schedules.get(entry.key, ""):
                changed.append(entry.key)
    return changed


def settle(world: World, route: ModelRoute) -> ModelRoute:
    """Finds the open schedule of a route, which then counts until the next look, and returns the route as it stands."""
    found = open_schedule(route, world.wall_clock()) if route.spec.schedules else None
    if found is None:
        world.open_schedules.pop(route.key, None)
    else:
        world.open_schedules[route.key] = found.name
    return standing(world, route)


def standing(world: World, route: ModelRoute) -> ModelRoute:
    """The route with the weights and scorers of the schedule that counts."""
    name = world.open_schedules.get(route.key)
    schedule = next((each for each in route.spec.schedules if each.name == name), None)
    return route if schedule is None else _under(schedule, route)


def open_schedule(route: ModelRoute, moment: datetime) -> RouteSchedule | None:
    """The first of a route's schedules that is open."""
    index = first_open([_window(each) for each in route.spec.schedules], moment)
    return None if index is None else route.spec.schedules[index]


def _under(schedule: RouteSchedule, route: ModelRoute) -> ModelRoute:
    spec = route.spec
    rules = tuple(
        rule.model_copy(
            update={
                "backend_refs": tuple(
                    ref.model_copy(update={"weight": schedule.weights.get(ref.name, ref.weight)}) for ref in rule.backend_refs
                )
            }
        )
        for rule in spec.rules
    )
    scheduling = spec.scheduling if schedule.scheduling is None else schedule.scheduling
    return route.model_copy(update={"spec": spec.model_copy(update={"rules": rules, "scheduling": scheduling})})


def replica_bounds(spec: Scaling, moment: datetime, start_seconds: float) -> Bounds:
    """Fewest and most replicas of this moment. `start_seconds`: until one that is asked for is ready."""
    schedules = [
        ReplicaSchedule(
            each.name, _window(each), each.min_replicas, each.max_replicas, None if each.lead is None else each.lead.seconds
        )
        for each in spec.schedules
    ]
    return bounds(schedules, Bounds(spec.min_replicas, spec.max_replicas), moment, start_seconds)


def _window(declared: TimeWindow) -> Window:
    start, end = declared.hours
    return Window(declared.time_zone, start, end, declared.weekdays)
