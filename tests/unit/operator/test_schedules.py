"""Schedules through the core: weights and scorers of a route together, and bounds of replicas, with the hour."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from tests.fakes.operator_core import Bench, FakeTargets, backend, endpoint, route

from spillway_operator.api import BackendStatus, ModelRoute, ObjectKey, RouteStatus
from spillway_operator.reconcile.schedules import tick
from spillway_operator.scaling.ports import TargetState
from spillway_operator.store import BACKEND, ROUTE
from spillway_wire.loads import Load
from spillway_wire.names import SchedulingProfile
from spillway_wire.snapshot import Route, Weights

CHAT = ObjectKey(ROUTE, "default", "chat")
FAST = ObjectKey(BACKEND, "default", "fast")
NIGHT = {
    "name": "night",
    "timeZone": "Europe/Berlin",
    "start": "22:00",
    "end": "06:00",
    "weights": {"fast": 20, "slow": 80},
    "scheduling": {"profile": "NodeLoad"},
}
FULL = Load(in_flight=100, queued=60, max_concurrency=100)
IDLE = Load(in_flight=1, max_concurrency=100)


def clock(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Berlin"))


def chat(*schedules: dict[str, Any], generation: int = 1) -> ModelRoute:
    refs = [{"name": "fast", "weight": 90}, {"name": "slow", "weight": 10}]
    return route(refs=refs, schedules=list(schedules), generation=generation)


def routed(moment: str, *schedules: dict[str, Any]) -> Bench:
    bench = Bench()
    bench.moment = clock(moment)
    bench.put(backend("fast"), backend("slow"), chat(*(schedules or (NIGHT,))))
    bench.store.set_endpoints({"default/fast": [endpoint("fast-0")], "default/slow": [endpoint("slow-0")]})
    bench.step()
    for name in ("fast-0", "slow-0"):
        bench.publisher.connect(name)
    bench.publisher.ack()
    return bench


def published(bench: Bench) -> tuple[dict[str, int], SchedulingProfile | None]:
    """Weights and profile as proxies have them."""
    resource = bench.publisher.current.resources["route", "default/chat"].resource
    assert isinstance(resource, Route)
    profile = resource.scheduling.profile if resource.scheduling is not None else None
    return {ref.cluster.partition("/")[2]: ref.weight for ref in resource.rules[0].backends}, profile


def shown(bench: Bench) -> str:
    status = bench.store.status(CHAT)
    assert isinstance(status, RouteStatus)
    return status.schedule


def test_weights_and_scorers_change_together_when_a_window_opens_and_when_it_closes():
    bench = routed("2026-11-20 21:59:58")
    by_day = ({"fast": 90, "slow": 10}, None)
    assert (published(bench), shown(bench)) == (by_day, "")
    bench.moment = clock("2026-11-20 22:00")
    bench.step(1.1)
    by_night = ({"fast": 20, "slow": 80}, SchedulingProfile.NODE_LOAD)
    assert (published(bench), shown(bench)) == (by_night, "night")
    assert bench.condition(chat(NIGHT), "Programmed") == ("False", "Pending")  # proxies have it to take first
    bench.publisher.ack()
    bench.step()
    assert bench.condition(chat(NIGHT), "Programmed")[0] == "True"
    states = len(bench.publisher.states)
    bench.moment = clock("2026-11-21 05:59:59")
    bench.step(1.1)
    assert (published(bench), len(bench.publisher.states)) == (by_night, states)
    bench.moment = clock("2026-11-21 06:00")
    bench.step(1.1)
    assert (published(bench), shown(bench)) == (by_day, "")


def test_an_operator_that_starts_in_a_window_publishes_its_weights_first():
    bench = routed("2026-11-20 23:00")
    assert [len(bench.publisher.states), published(bench)[0]] == [1, {"fast": 20, "slow": 80}]


def test_an_edit_within_a_window_counts_at_once():
    bench = routed("2026-11-20 23:00")
    bench.put(chat(NIGHT | {"weights": {"fast": 1, "slow": 0}}, generation=2))
    bench.step()
    assert published(bench)[0] == {"fast": 1, "slow": 0}
    bench.put(chat(generation=3))
    bench.step()
    assert (published(bench)[0], shown(bench)) == ({"fast": 90, "slow": 10}, "")


def test_a_route_that_is_gone_is_forgotten():
    bench = routed("2026-11-20 23:00")
    bench.store.remove(CHAT)
    bench.step()
    assert bench.world.open_schedules == {}


def test_a_route_that_does_not_hold_its_model_is_not_looked_at_each_second():
    bench = routed("2026-11-20 23:00")
    other = route("older", schedules=[NIGHT | {"weights": {"fast": 2}}])
    bench.put(other)
    bench.step()
    assert list(bench.world.conflicts["default"]) == ["chat"]
    assert tick(bench.world) == []


def test_a_schedule_without_scorers_leaves_those_that_are_declared():
    bench = routed("2026-11-20 23:00", {name: value for name, value in NIGHT.items() if name != "scheduling"})
    assert published(bench) == ({"fast": 20, "slow": 80}, None)


def test_saturated_backends_lose_weight_from_what_the_schedule_gives_them():
    bench = routed("2026-11-20 23:00")
    for _ in range(12):
        bench.report("fast-0", IDLE)
        bench.report("slow-0", FULL)
        bench.step(0.5)
    encoded = bench.publisher.current.resources["weights", "default/chat"].resource
    assert isinstance(encoded, Weights)
    weights = encoded.rules[0].weights
    assert weights["default/fast"] == 20.0
    assert weights["default/slow"] < 60.0


def scaled(moment: str, **schedule: Any) -> tuple[Bench, FakeTargets]:
    """A backend with two idle replicas."""
    targets = FakeTargets(fast=2)
    bench = Bench(targets=targets)
    bench.moment = clock(moment)
    office = {"name": "office", "timeZone": "Europe/Berlin", "days": ["Fri"], "start": "08:00", "end": "18:00", **schedule}
    bench.put(backend("fast", scaling={"targetRef": {"name": "fast"}, "minReplicas": 1, "maxReplicas": 8, "schedules": [office]}))
    bench.step(2.0)
    return bench, targets


def replicas(targets: FakeTargets) -> int:
    state = targets.states["fast"]
    assert isinstance(state, TargetState)
    return state.replicas


def backend_schedule(bench: Bench) -> str:
    bench.step(1.1)
    status = bench.store.status(FAST)
    assert isinstance(status, BackendStatus)
    return status.schedule


@pytest.mark.parametrize(("lead", "moment"), [({}, "07:58:01"), ({"lead": "1h"}, "07:00:01")])
def test_replicas_are_there_when_the_window_opens(lead: dict[str, str], moment: str):
    """Without a word from any proxy: what is declared needs no measurement."""
    bench, targets = scaled("2026-11-20 06:00", minReplicas=5, **lead)
    assert (replicas(targets), backend_schedule(bench)) == (2, "")
    bench.moment = clock(f"2026-11-20 {moment}")
    bench.step(2.0)
    assert (replicas(targets), backend_schedule(bench)) == (5, "office (ahead)")
    bench.moment = clock("2026-11-20 08:00")
    bench.step(2.0)
    assert (replicas(targets), backend_schedule(bench)) == (5, "office")


def test_a_lower_most_takes_replicas_away_when_the_window_opens_and_not_before():
    bench, targets = scaled("2026-11-20 07:59:30", maxReplicas=1)
    assert replicas(targets) == 2
    bench.moment = clock("2026-11-20 08:00")
    bench.step(2.0)
    assert (replicas(targets), backend_schedule(bench)) == (1, "office")


def test_other_days_are_as_declared():
    bench, targets = scaled("2026-11-21 12:00", minReplicas=5)
    assert (replicas(targets), backend_schedule(bench)) == (2, "")


def test_what_earlier_days_had_at_this_time_raises_the_least():
    targets = FakeTargets(fast=1)
    bench = Bench(targets=targets)
    bench.moment = clock("2026-11-20 07:00")
    bench.put(backend("fast", scaling={"targetRef": {"name": "fast"}, "maxReplicas": 8, "forecast": "Daily"}))
    bench.step(2.0)
    daily = bench.scaling._records["default/fast"].daily
    assert daily is not None
    for minute in range(-3 * 24 * 60, 0):
        wall = bench.moment.timestamp() + 60.0 * minute
        daily.record(wall, 5.0 if datetime.fromtimestamp(wall, clock("2026-11-20 07:00").tzinfo).hour >= 8 else 1.0)
    for moment, expected in (("07:50", 1), ("07:58:30", 5), ("12:00", 5)):
        bench.moment = clock(f"2026-11-20 {moment}")
        bench.step(2.0)
        assert replicas(targets) == expected
    shown = bench.scaling.info()["default/fast"]
    assert (shown["forecast"]["known_of_day"], shown["schedule"]) == (1.0, "")
