"""`schedules` of a ModelBackend's scaling and of a ModelRoute: what is different at some hours of some days.

A schedule is a window of local time in an IANA time zone. Of those that are open the first in the list counts. The list is atomic, since its
order has that meaning.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from datetime import time
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from pydantic import Field

from spillway_operator.api.base import SpecModel
from spillway_operator.api.durations import Duration
from spillway_operator.api.fields import CLOCK_PATTERN, TIME_ZONE_PATTERN, DnsLabel
from spillway_operator.api.lists import ListSet, repeats
from spillway_operator.api.rules import Location, Rule
from spillway_operator.api.scheduling import Scheduling

MAX_SCHEDULES: Final = 8


class Weekday(enum.StrEnum):
    """A day of the week, in the order of the week."""

    MON = "Mon"
    TUE = "Tue"
    WED = "Wed"
    THU = "Thu"
    FRI = "Fri"
    SAT = "Sat"
    SUN = "Sun"


ClockTime = Annotated[str, Field(min_length=1, max_length=5, pattern=CLOCK_PATTERN)]


class TimeWindow(SpecModel):
    """Some hours of some days."""

    name: DnsLabel = Field(description="Name of the schedule, once in its list; shows in the status while it is open.")
    time_zone: str = Field(
        default="UTC",
        min_length=1,
        max_length=64,
        pattern=TIME_ZONE_PATTERN,
        description="IANA time zone of start and end, e.g. Europe/Berlin.",
    )
    days: Annotated[tuple[Weekday, ...], Field(max_length=7), ListSet()] = Field(
        default=(), description="Days on which it begins: Mon, Tue, Wed, Thu, Fri, Sat, Sun. Every day where left out."
    )
    start: ClockTime = Field(description="When it begins, e.g. 22:00.")
    end: ClockTime = Field(
        description="When it ends, e.g. 06:00; where this is not after start, on the day after. The same as start: 24 hours."
    )

    @property
    def weekdays(self) -> frozenset[int]:
        """The days as numbers, 0 for Monday."""
        order = list(Weekday)
        return frozenset(order.index(day) for day in self.days or order)

    @property
    def hours(self) -> tuple[time, time]:
        """Start and end."""
        return time.fromisoformat(self.start), time.fromisoformat(self.end)


class ReplicaSchedule(TimeWindow):
    """Fewest and most replicas at some hours."""

    min_replicas: int | None = Field(
        default=None, strict=True, ge=0, le=1000, description="Fewest replicas meanwhile; minReplicas outside where left out."
    )
    max_replicas: int | None = Field(
        default=None, strict=True, ge=1, le=1000, description="Most replicas meanwhile; maxReplicas outside where left out."
    )
    lead: Duration | None = Field(
        default=None,
        description="How long before it begins its minReplicas are asked for. As long as a replica takes to start, as learned, where left out.",
    )


class RouteSchedule(TimeWindow):
    """Weights and scorers at some hours, together."""

    weights: dict[str, Annotated[int, Field(strict=True, ge=0, le=1_000_000)]] = Field(
        default_factory=dict,
        max_length=16,
        description="Weights by backend in place of those in backendRefs, in every rule that names it, e.g. llama-spot: 80.",
    )
    scheduling: Scheduling | None = Field(
        default=None,
        description="By what endpoints and backends are chosen meanwhile, in place of spec.scheduling; a rule's own stays.",
    )


def known_zone(name: str) -> bool:
    """Whether there is such a time zone."""
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return False
    return True


def _repeated_names(schedules: list[dict[str, Any]]) -> Iterator[Location]:
    yield from ((index, "name") for index in repeats([each.get("name", index) for index, each in enumerate(schedules)]))


def _common(path: str) -> tuple[Rule, Rule]:
    """The rules of every list of schedules."""
    return (
        Rule(
            name="unique-schedule-names",
            path=path,
            cel="self.all(a, self.exists_one(b, b.name == a.name))",
            message="a schedule's name stands once in its list, since the status tells schedules apart by it: rename one of them",
            find=_repeated_names,
        ),
        Rule(
            name="known-time-zone",
            path=f"{path}[].timeZone",
            cel="timestamp('2000-01-01T00:00:00Z').getHours(self) >= 0",
            message="there is no time zone of this name: give one of the IANA database, e.g. Europe/Berlin",
            find=lambda name: () if known_zone(name) else ((),),
        ),
    )


def _upside_down(scaling: dict[str, Any]) -> Iterator[Location]:
    for index, each in enumerate(scaling.get("schedules", ())):
        if each.get("minReplicas", scaling["minReplicas"]) > each.get("maxReplicas", scaling["maxReplicas"]):
            yield "schedules", index, "minReplicas" if "minReplicas" in each else "maxReplicas"


REPLICA_RULES: Final = (
    *_common("spec.scaling.schedules"),
    Rule(
        name="schedule-least-below-most",
        path="spec.scaling",
        cel="!has(self.schedules) || self.schedules.all(s, (has(s.minReplicas) ? s.minReplicas : self.minReplicas)"
        " <= (has(s.maxReplicas) ? s.maxReplicas : self.maxReplicas))",
        message="in a schedule minReplicas would be more than maxReplicas (the one outside counts where a schedule has none): lower one, or"
        " raise the other",
        find=_upside_down,
        field=".schedules",
    ),
    Rule(
        name="schedule-bounds-something",
        path="spec.scaling.schedules[]",
        cel="has(self.minReplicas) || has(self.maxReplicas)",
        message="a schedule without minReplicas and maxReplicas changes nothing: give one of them, or remove it",
        find=lambda each: () if "minReplicas" in each or "maxReplicas" in each else ((),),
    ),
    Rule(
        name="lead-needs-replicas",
        path="spec.scaling.schedules[]",
        cel="!has(self.lead) || has(self.minReplicas)",
        message="lead is how long before minReplicas are asked for: give minReplicas, or remove lead",
        find=lambda each: [("lead",)] if "lead" in each and "minReplicas" not in each else (),
        field=".lead",
    ),
)


def _says_nothing(each: dict[str, Any]) -> Iterator[Location]:
    if not each.get("weights") and "scheduling" not in each:
        yield ()


def _strange_weights(spec: dict[str, Any]) -> Iterator[Location]:
    named = {ref["name"] for rule in spec["rules"] for ref in rule["backendRefs"]}
    for index, each in enumerate(spec.get("schedules", ())):
        yield from (("schedules", index, "weights", name) for name in each.get("weights", {}) if name not in named)


def _idle_rules(spec: dict[str, Any]) -> Iterator[Location]:
    for index, each in enumerate(spec.get("schedules", ())):
        weights = each.get("weights", {})
        for rule in spec["rules"]:
            if all(weights.get(ref["name"], ref["weight"]) == 0 for ref in rule["backendRefs"]):
                yield "schedules", index, "weights"
                break


ROUTE_RULES: Final = (
    *_common("spec.schedules"),
    Rule(
        name="schedule-changes-something",
        path="spec.schedules[]",
        cel="(has(self.weights) && size(self.weights) > 0) || has(self.scheduling)",
        message="a schedule without weights and scheduling changes nothing: give one of them, or remove it",
        find=_says_nothing,
    ),
    Rule(
        name="schedule-weighs-backends",
        path="spec",
        cel="!has(self.schedules) || self.schedules.all(s, !has(s.weights) || s.weights.all(name,"
        " self.rules.exists(r, r.backendRefs.exists(ref, ref.name == name))))",
        message="a schedule has a weight for a backend that no rule names: remove it, or name the backend in a rule",
        find=_strange_weights,
        field=".schedules",
    ),
    Rule(
        name="schedule-leaves-weight",
        path="spec",
        cel="!has(self.schedules) || self.schedules.all(s, !has(s.weights) || self.rules.all(r, r.backendRefs.exists(ref,"
        " (ref.name in s.weights ? s.weights[ref.name] : ref.weight) != 0)))",
        message="a schedule leaves a rule without any backend that has a weight: give one of them a weight",
        find=_idle_rules,
        field=".schedules",
    ),
)
