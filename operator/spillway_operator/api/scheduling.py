"""`scheduling` of a ModelRoute and of its rules: by what an endpoint is chosen, and a backend among those of one priority."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Final

from pydantic import Field

from spillway_operator.api.base import SpecModel
from spillway_operator.api.fields import HEADER_NAME_PATTERN
from spillway_operator.api.lists import ListMap
from spillway_operator.api.rules import Finder, Location, Rule
from spillway_wire.names import SchedulingProfile, Scorer

AMONG_BACKENDS: Final = (Scorer.LATENCY, Scorer.SUCCESS_RATE, Scorer.COST)


class ScorerWeight(SpecModel):
    """How much one scorer counts."""

    name: Scorer = Field(
        description="What is looked at. Among endpoints: Load, InFlight, QueueDepth, KVCache, GPUUtilization, PrefixAffinity, SessionAffinity,"
        " LoRAAffinity. Among the backends of one priority: Latency, SuccessRate, Cost."
    )
    weight: int = Field(
        default=1, strict=True, ge=0, le=1000, description="How much it counts beside the others, e.g. 3; 0 not at all."
    )


class Scheduling(SpecModel):
    """By what endpoints and backends are chosen."""

    profile: SchedulingProfile = Field(
        default=SchedulingProfile.DEFAULT,
        description="Scorers and weights by one name: Default (predicted wait), Balanced, NodeLoad, LeastRequest, RoundRobin.",
    )
    scorers: Annotated[tuple[ScorerWeight, ...], Field(max_length=16), ListMap("name")] = Field(
        default=(), description="Weights in place of the profile's, and scorers that it has not."
    )
    session_header: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=HEADER_NAME_PATTERN,
        description="Header that names a request's session for SessionAffinity; x-session-id where left out, and then prompt_cache_key or"
        " user of the body.",
    )

    @property
    def by_cost(self) -> bool:
        """Whether what backends cost counts."""
        weights = {scorer.name: scorer.weight for scorer in self.scorers}
        return weights.get(Scorer.COST, int(self.profile is SchedulingProfile.BALANCED)) > 0


def chooses_backends(scheduling: dict[str, Any] | None) -> bool:
    """Whether backends of one priority are compared, in an object as plain data."""
    if scheduling is None:
        return False
    weights = {scorer["name"]: scorer["weight"] for scorer in scheduling.get("scorers", ())}
    declared = [name for name, weight in weights.items() if weight and name in AMONG_BACKENDS]
    return bool(declared) or scheduling["profile"] == SchedulingProfile.BALANCED


def _compares(rule: dict[str, Any]) -> bool:
    priorities = [ref["priority"] for ref in rule["backendRefs"]]
    return len(set(priorities)) < len(priorities)


def _nothing_to_compare(rule: dict[str, Any]) -> Iterator[Location]:
    if chooses_backends(rule.get("scheduling")) and not _compares(rule):
        yield ("scheduling",)


def _nowhere_to_compare(spec: dict[str, Any]) -> Iterator[Location]:
    if chooses_backends(spec.get("scheduling")) and not any(_compares(rule) for rule in spec["rules"]):
        yield ("scheduling",)


def _nowhere_to_compare_then(spec: dict[str, Any]) -> Iterator[Location]:
    if not any(_compares(rule) for rule in spec["rules"]):
        for index, schedule in enumerate(spec.get("schedules", ())):
            if chooses_backends(schedule.get("scheduling")):
                yield "schedules", index, "scheduling"


def _turns_and_scorers(scheduling: dict[str, Any]) -> Iterator[Location]:
    if scheduling["profile"] == SchedulingProfile.ROUND_ROBIN and scheduling.get("scorers"):
        yield ("scorers",)


def _no_weight(scheduling: dict[str, Any]) -> Iterator[Location]:
    scorers = scheduling.get("scorers") or ()
    if scheduling["profile"] == SchedulingProfile.DEFAULT and scorers and not any(scorer["weight"] for scorer in scorers):
        yield ("scorers",)


def _idle_session_header(scheduling: dict[str, Any]) -> Iterator[Location]:
    scorers = scheduling.get("scorers", ())
    by_session = any(scorer["name"] == Scorer.SESSION_AFFINITY and scorer["weight"] for scorer in scorers)
    if "sessionHeader" in scheduling and not by_session:
        yield ("sessionHeader",)


_CHOOSES_BACKENDS: Final = (
    "has(self.scheduling) && (self.scheduling.profile == 'Balanced' || (has(self.scheduling.scorers)"
    " && self.scheduling.scorers.exists(s, s.weight > 0 && s.name in ['Latency', 'SuccessRate', 'Cost'])))"
)
_COMPARES: Final = "self.rules.exists(r, r.backendRefs.exists(a, r.backendRefs.filter(b, b.priority == a.priority).size() > 1))"


def _in_entry(find: Finder) -> Finder:
    """The same finder for the node around."""
    return lambda entry: [("scheduling", *at) for at in find(entry["scheduling"])] if "scheduling" in entry else ()


def _own(name: str, cel: str, message: str, find: Finder, field: str) -> tuple[Rule, ...]:
    """A rule about `scheduling` alone, for the route's, a rule's and a schedule's. In `cel`, `$` is the object."""
    return (
        Rule(name, "spec.scheduling", cel.replace("$", "self"), message, find, field),
        *(
            Rule(
                f"{name}-in-{place}",
                f"spec.{place}s[]",
                f"!has(self.scheduling) || {cel.replace('$', 'self.scheduling')}",
                message,
                _in_entry(find),
                f".scheduling{field}",
            )
            for place in ("rule", "schedule")
        ),
    )


RULES: Final = (
    *_own(
        "round-robin-alone",
        "$.profile != 'RoundRobin' || !has($.scorers) || size($.scorers) == 0",
        "RoundRobin looks at nothing: remove scorers, or name another profile",
        _turns_and_scorers,
        ".scorers",
    ),
    *_own(
        "some-scorer",
        "$.profile != 'Default' || !has($.scorers) || size($.scorers) == 0 || $.scorers.exists(s, s.weight > 0)",
        "scorers that all have weight 0 choose nothing: give one a weight, or remove scorers",
        _no_weight,
        ".scorers",
    ),
    *_own(
        "session-header-is-read",
        "!has($.sessionHeader) || (has($.scorers) && $.scorers.exists(s, s.name == 'SessionAffinity' && s.weight > 0))",
        "only SessionAffinity reads sessionHeader: add that scorer, or remove the header",
        _idle_session_header,
        ".sessionHeader",
    ),
    Rule(
        name="backends-to-compare",
        path="spec",
        cel=f"!({_CHOOSES_BACKENDS}) || {_COMPARES}",
        message="Balanced, Latency, SuccessRate and Cost compare backends of one priority, and no rule has two of one: remove them, or give"
        " two backends the same priority",
        find=_nowhere_to_compare,
        field=".scheduling",
    ),
    Rule(
        name="backends-to-compare-in-rule",
        path="spec.rules[]",
        cel=f"!({_CHOOSES_BACKENDS})"
        " || self.backendRefs.exists(a, self.backendRefs.filter(b, b.priority == a.priority).size() > 1)",
        message="Balanced, Latency, SuccessRate and Cost compare backends of one priority, and this rule has no two of one: remove them, or"
        " give two backends the same priority",
        find=_nothing_to_compare,
        field=".scheduling",
    ),
    Rule(
        name="backends-to-compare-in-schedule",
        path="spec",
        cel="!has(self.schedules) || !self.schedules.exists(schedule,"
        f" {_CHOOSES_BACKENDS.replace('self.', 'schedule.')}) || {_COMPARES}",
        message="in a schedule Balanced, Latency, SuccessRate and Cost compare backends of one priority, and no rule has two of one:"
        " remove them, or give two backends the same priority",
        find=_nowhere_to_compare_then,
        field=".schedules",
    ),
)
