"""The routing table: snapshot resources compiled once, when a snapshot is swapped in.

A request looks its model up, takes the first rule that matches, and gets that rule's backends grouped by priority. Nothing
here is computed during a request that could be computed at the swap. A request keeps the table that it began with.

`C` is whatever the caller's clusters are at run time; the table only holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Generic, TypeVar

from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.scheduling.profile import DEFAULT, Profile
from spillway_wire.names import RequestType
from spillway_wire.snapshot import BackendRef, Match, Retries, Route, Rule, Timeouts, Weights

C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class Backend(Generic[C]):
    """One backend of a rule, ready to be chosen. `weight` is the effective one."""

    name: str
    cluster: C
    weight: float
    model: str  # the name sent upstream
    types: frozenset[RequestType]
    route: str
    rule: str
    key: tuple[str, str, str]  # route, rule, name: what it is counted under


@dataclass(frozen=True, slots=True)
class PriorityGroup(Generic[C]):
    """Backends of one priority, those with weight 0 left out."""

    priority: int
    backends: tuple[Backend[C], ...]


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class CompiledRule(Generic[C]):
    """A rule: its matches (none: takes everything) and its backends by priority."""

    name: str
    matches: tuple[CompiledMatch, ...]
    groups: tuple[PriorityGroup[C], ...]
    profile: Profile = DEFAULT

    def takes(self, facts: Facts, headers: Mapping[bytes, bytes]) -> bool:
        """Whether any match holds, or there is none."""
        return not self.matches or any(match.holds(facts, headers) for match in self.matches)


@dataclass(frozen=True, slots=True)
class CompiledRoute(Generic[C]):
    """A route: rules in order, and what holds for all of them."""

    name: str
    models: tuple[str, ...]
    rules: tuple[CompiledRule[C], ...]
    timeouts: Timeouts
    retries: Retries

    def rule_for(self, facts: Facts, headers: Mapping[bytes, bytes]) -> CompiledRule[C] | None:
        """The first rule that takes the request."""
        for rule in self.rules:
            if not rule.matches or rule.takes(facts, headers):
                return rule
        return None


@dataclass(frozen=True, slots=True)
class RoutingTable(Generic[C]):
    """Routes by the model names that clients send."""

    version: str
    routes: dict[str, CompiledRoute[C]]  # by model name
    models: tuple[str, ...]


def compile_table(
    version: str,
    routes: Iterable[Route],
    weights: Mapping[str, Weights],
    cluster_of: Callable[[str], tuple[C, str, tuple[RequestType, ...]]],
) -> RoutingTable[C]:
    """Compiles routes. `cluster_of(name)` gives the run-time cluster, the model name it serves and its capabilities.

    Raises KeyError where a route names a cluster that does not exist: the snapshot was not validated.
    """
    by_model: dict[str, CompiledRoute[C]] = {}
    for route in sorted(routes, key=lambda r: r.name):
        effective = {rule.rule: rule.weights for rule in weights[route.name].rules} if route.name in weights else {}
        compiled = CompiledRoute(
            name=route.name,
            models=route.models,
            rules=tuple(_compile_rule(route, rule, effective.get(rule.name, {}), cluster_of) for rule in route.rules),
            timeouts=route.timeouts,
            retries=route.retries,
        )
        for model in route.models:
            by_model.setdefault(model, compiled)
    return RoutingTable(version, by_model, tuple(sorted(by_model)))


def _compile_rule(
    route: Route, rule: Rule, effective: Mapping[str, float], cluster_of: Callable[[str], tuple[C, str, tuple[RequestType, ...]]]
) -> CompiledRule[C]:
    def backend(ref: BackendRef) -> Backend[C]:
        cluster, model, types = cluster_of(ref.cluster)
        return Backend(
            name=ref.cluster,
            cluster=cluster,
            weight=effective.get(ref.cluster, float(ref.weight)),
            model=ref.model_override or model,
            types=frozenset(types),
            route=route.name,
            rule=rule.name,
            key=(route.name, rule.name, ref.cluster),
        )

    refs = sorted((ref for ref in rule.backends if ref.weight > 0), key=lambda ref: ref.priority)
    groups = tuple(
        PriorityGroup(priority, tuple(backend(ref) for ref in members))
        for priority, members in groupby(refs, key=lambda ref: ref.priority)
    )
    return CompiledRule(rule.name, tuple(_compile_match(match) for match in rule.matches), groups)


def _compile_match(match: Match) -> CompiledMatch:
    tokens = match.prompt_tokens
    return CompiledMatch(
        types=frozenset(match.request_types),
        headers=tuple((header.name.lower().encode("ascii"), header.value.encode("latin-1")) for header in match.headers),
        min_tokens=tokens.min or 0 if tokens else 0,
        max_tokens=tokens.max if tokens and tokens.max is not None else 1 << 62,
    )
