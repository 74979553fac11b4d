"""The routing table: snapshot resources compiled once, when a snapshot is swapped in.

A request looks its model up, takes the first rule that matches, and gets that rule's backends grouped by priority. Nothing
here is computed during a request that could be computed at the swap. A request keeps the table that it began with.

`C` is whatever the caller's clusters are at run time; the table only holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Generic, TypeVar

from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.scheduling.profile import DEFAULT, Profile, compile_profile
from spillway_wire.names import RequestType
from spillway_wire.snapshot import BackendRef, FlowControl, Match, Retries, Route, Rule, Timeouts, Weights

C = TypeVar("C")


class Backend(Generic[C]):
    """One backend of a rule, ready to be chosen. `weight` is the effective one."""

    __slots__ = ("cluster", "fallback", "key", "model", "name", "priority", "route", "rule", "spill", "stats", "types", "weight")

    def __init__(
        self,
        name: str,
        cluster: C,
        weight: float,
        model: str,
        types: frozenset[RequestType],
        route: str,
        rule: str,
        fallback: Any = None,
        spill: Any = None,
        priority: int = 0,
    ) -> None:
        self.name = name
        self.cluster = cluster
        self.weight = weight
        self.model = model  # the name sent upstream
        self.types = types
        self.route = route
        self.rule = rule
        self.key = (route, rule, name)  # what it is counted under
        self.fallback = fallback  # of its priority
        self.spill = spill
        self.priority = priority
        self.stats: Any = None  # its counters, found when they are first asked for


class PriorityGroup(Generic[C]):
    """Backends of one priority, those with weight 0 left out, and the conditions under which requests go on to the next."""

    __slots__ = ("backends", "fallback", "priority", "spill")

    def __init__(self, priority: int, backends: tuple[Backend[C], ...], fallback: Any = None, spill: Any = None) -> None:
        self.priority = priority
        self.backends = backends
        self.fallback = fallback  # `balancing.fallback.Fallback`
        self.spill = spill  # `balancing.spill.Spill`


# (route, rule, priority) -> what stands for the rule's fallback and spill at that priority, living on from table to table.
ConditionsOf = Callable[[Route, Rule, int], tuple[Any, Any]]


@dataclass(frozen=True)
class CompiledMatch:
    """A match with its conditions in the form that a request's facts have."""

    types: frozenset[RequestType]
    headers: tuple[tuple[bytes, bytes], ...]
    min_tokens: int
    max_tokens: int

    def holds(self, facts: Facts, headers: Mapping[bytes, bytes]) -> bool:
        """Whether all conditions hold; `headers` has lower-case names."""
        if self.types and facts.type not in self.types:
            return False
        if not self.min_tokens <= facts.prompt_tokens <= self.max_tokens:
            return False
        return all(headers.get(name) == value for name, value in self.headers)


class CompiledRule(Generic[C]):
    """A rule: its matches (none: takes everything) and its backends by priority. `wakes`: those that scale, which may have no replica."""

    __slots__ = ("groups", "matches", "name", "profile", "wakes")

    def __init__(
        self,
        name: str,
        matches: tuple[CompiledMatch, ...],
        groups: tuple[PriorityGroup[C], ...],
        profile: Profile = DEFAULT,
        wakes: tuple[Backend[C], ...] = (),
    ) -> None:
        self.name = name
        self.matches = matches
        self.groups = groups
        self.profile = profile
        self.wakes = wakes

    def takes(self, facts: Facts, headers: Mapping[bytes, bytes]) -> bool:
        """Whether any match holds, or there is none."""
        return not self.matches or any(match.holds(facts, headers) for match in self.matches)


@dataclass(frozen=True)
class CompiledTimeouts:
    """How long what may take, in seconds."""

    first_token_seconds: float
    stream_idle_seconds: float
    request_seconds: float
    connect_seconds: float
    admission_seconds: float


@dataclass(frozen=True)
class CompiledFlow:
    """How requests wait, with header names and values in the form that a request's head has."""

    max_requests: int
    max_bytes: int
    max_wait_seconds: float
    priority_header: bytes
    priorities: Mapping[bytes, int]
    fairness_header: bytes


class CompiledRoute(Generic[C]):
    """A route: rules in order, and what holds for all of them."""

    __slots__ = ("flow", "models", "name", "retries", "rules", "timeouts")

    def __init__(
        self,
        name: str,
        models: tuple[str, ...],
        rules: tuple[CompiledRule[C], ...],
        timeouts: CompiledTimeouts,
        retries: Retries,
        flow: CompiledFlow,
    ) -> None:
        self.name = name
        self.models = models
        self.rules = rules
        self.timeouts = timeouts
        self.retries = retries
        self.flow = flow

    def rule_for(self, facts: Facts, headers: Mapping[bytes, bytes]) -> CompiledRule[C] | None:
        """The first rule that takes the request."""
        for rule in self.rules:
            if not rule.matches or rule.takes(facts, headers):
                return rule
        return None


class RoutingTable(Generic[C]):
    """Routes by the model names that clients send."""

    __slots__ = ("models", "routes", "version")

    def __init__(self, version: str, routes: dict[str, CompiledRoute[C]], models: tuple[str, ...]) -> None:
        self.version = version
        self.routes = routes  # by model name
        self.models = models


def compile_table(
    version: str,
    routes: Iterable[Route],
    weights: Mapping[str, Weights],
    cluster_of: Callable[[str], tuple[C, str, tuple[RequestType, ...]]],
    conditions_of: ConditionsOf = lambda *_: (None, None),
    holding: Collection[str] = (),
) -> RoutingTable[C]:
    """Compiles routes. `cluster_of(name)` gives the run-time cluster, the model name it serves and its capabilities.

    `conditions_of` is asked for each priority but a rule's last, from which there is nowhere to go on to. `holding`: the clusters that scale.

    Raises KeyError where a route names a cluster that does not exist: the snapshot was not validated.
    """
    by_model: dict[str, CompiledRoute[C]] = {}
    for route in sorted(routes, key=lambda r: r.name):
        effective = {rule.rule: rule.weights for rule in weights[route.name].rules} if route.name in weights else {}
        compiled = CompiledRoute(
            name=route.name,
            models=route.models,
            rules=tuple(
                _compile_rule(route, rule, effective.get(rule.name, {}), cluster_of, conditions_of, holding) for rule in route.rules
            ),
            timeouts=_compile_timeouts(route.timeouts),
            retries=route.retries,
            flow=_compile_flow(route.flow_control),
        )
        for model in route.models:
            by_model.setdefault(model, compiled)
    return RoutingTable(version, by_model, tuple(sorted(by_model)))


def _compile_rule(
    route: Route,
    rule: Rule,
    effective: Mapping[str, float],
    cluster_of: Callable[[str], tuple[C, str, tuple[RequestType, ...]]],
    conditions_of: ConditionsOf,
    holding: Collection[str],
) -> CompiledRule[C]:
    def backend(ref: BackendRef, fallback: Any, spill: Any) -> Backend[C]:
        cluster, model, types = cluster_of(ref.cluster)
        return Backend(
            name=ref.cluster,
            cluster=cluster,
            weight=effective.get(ref.cluster, float(ref.weight)),
            model=ref.model_override or model,
            types=frozenset(types),
            route=route.name,
            rule=rule.name,
            fallback=fallback,
            spill=spill,
            priority=ref.priority,
        )

    def group(priority: int, members: list[BackendRef]) -> PriorityGroup[C]:
        fallback, spill = (None, None) if priority == last else conditions_of(route, rule, priority)
        return PriorityGroup(priority, tuple(backend(ref, fallback, spill) for ref in members), fallback, spill)

    refs = sorted((ref for ref in rule.backends if ref.weight > 0), key=lambda ref: ref.priority)
    last = refs[-1].priority if refs else 0
    groups = tuple(group(priority, list(members)) for priority, members in groupby(refs, key=lambda ref: ref.priority))
    matches = tuple(_compile_match(match) for match in rule.matches)
    wakes = tuple(backend for group in groups for backend in group.backends if backend.name in holding)
    return CompiledRule(rule.name, matches, groups, compile_profile(rule.scheduling or route.scheduling), wakes)


def _compile_timeouts(timeouts: Timeouts) -> CompiledTimeouts:
    return CompiledTimeouts(
        timeouts.first_token_seconds,
        timeouts.stream_idle_seconds,
        timeouts.request_seconds,
        timeouts.connect_seconds,
        timeouts.admission_seconds,
    )


def _compile_flow(flow: FlowControl) -> CompiledFlow:
    return CompiledFlow(
        max_requests=flow.max_requests,
        max_bytes=flow.max_bytes,
        max_wait_seconds=flow.max_wait_seconds,
        priority_header=flow.priority_header.lower().encode("ascii"),
        priorities={item.value.encode("latin-1"): item.priority for item in flow.priorities},
        fairness_header=flow.fairness_header.lower().encode("ascii"),
    )


def _compile_match(match: Match) -> CompiledMatch:
    tokens = match.prompt_tokens
    return CompiledMatch(
        types=frozenset(match.request_types),
        headers=tuple((header.name.lower().encode("ascii"), header.value.encode("latin-1")) for header in match.headers),
        min_tokens=tokens.min or 0 if tokens else 0,
        max_tokens=tokens.max if tokens and tokens.max is not None else 1 << 62,
    )
