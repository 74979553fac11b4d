"""Drafts of single resources -> the next state of the whole snapshot.

The reconciler keeps one *draft* for each resource, made from one object and checked by itself (`draft` raises for a resource
that a proxy would not decode, so that it harms only its own object). `assemble` joins the drafts. What it hands out is
consistent by construction, whatever the order in which drafts came and went:

- a route keeps those backends whose cluster is there; a rule may be left with none, which proxies answer with 503;
- endpoints and weights stand only beside their cluster or route, and weights name only backends that their rule has;
- of two routes of one namespace that claim a model, the first by name stays. Claims are settled before, by age; this
  holds only while an object that failed to reconcile keeps an older draft in place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from spillway_operator.snapshot.state import EncodedResource, SnapshotState, encode
from spillway_wire.snapshot import (
    Endpoints,
    Resource,
    ResourceKey,
    Route,
    Rule,
    RuleWeights,
    Weights,
    decode_resource,
)

Drafts = Mapping[ResourceKey, EncodedResource]

MIN_WITHDRAWN_KEPT: Final = 1000  # ids a cluster, or four times its endpoints; beyond that only the latest are kept


class UndecodableResourceError(ValueError):
    """A resource whose own encoding a proxy would refuse. The object that it was made from is shown as ReconcileFailed."""


def draft(resource: Resource, previous: Drafts) -> EncodedResource:
    """The resource encoded and decoded once for proof. Raises `UndecodableResourceError`."""
    encoded = encode(resource, previous)
    if previous.get(encoded.key) is not encoded:
        try:
            decode_resource(encoded.data)
        except msgspec.DecodeError as error:
            kind, name = encoded.key
            raise UndecodableResourceError(f"{kind} {name}: {error}") from error
    return encoded


def assemble(previous: SnapshotState, drafts: Drafts, version: str) -> SnapshotState | None:
    """The next state under `version`, or None where nothing differs from `previous`."""
    resources: dict[ResourceKey, EncodedResource] = {}
    claimed: dict[tuple[str, str], str] = {}
    for key in sorted(drafts):
        encoded = drafts[key]
        resource = _consistent(encoded.resource, drafts)
        if resource is None or (isinstance(resource, Route) and not _claim(resource, claimed)):
            continue
        if (
            isinstance(resource, Weights) and ("route", resource.name) not in resources
        ):  # its route claims what another has; "route" < "weights"
            continue
        resources[key] = _reuse(encoded, resource, previous.resources)
    if _same(resources, previous.resources):
        return None
    return SnapshotState(version=version, epoch=previous.epoch, resources=resources, withdrawn=_withdrawn(previous, resources))


def _reuse(encoded: EncodedResource, resource: Resource, previous: Drafts) -> EncodedResource:
    known = previous.get(encoded.key)
    if resource is not encoded.resource:
        return encode(resource, previous)
    return known if known is not None and known.hash == encoded.hash else encoded


def _same(one: Drafts, other: Drafts) -> bool:
    return one.keys() == other.keys() and all(one[key] is other[key] for key in one)


def _claim(route: Route, claimed: dict[tuple[str, str], str]) -> bool:
    namespace = route.name.partition("/")[0]
    names = [(namespace, model) for model in route.models]
    if any(name in claimed for name in names):
        return False
    claimed.update(dict.fromkeys(names, route.name))
    return True


def _consistent(resource: Resource, drafts: Drafts) -> Resource | None:
    if isinstance(resource, Route):
        return _resolved(resource, drafts)
    if isinstance(resource, Endpoints):
        return resource if ("cluster", resource.name) in drafts else None
    if isinstance(resource, Weights):
        route = drafts.get(("route", resource.name))
        return None if route is None or not isinstance(route.resource, Route) else _fitting(resource, route.resource, drafts)
    return resource


def _resolved(route: Route, drafts: Drafts) -> Route:
    if all(("cluster", ref.cluster) in drafts for rule in route.rules for ref in rule.backends):
        return route
    return msgspec.structs.replace(route, rules=tuple(_resolved_rule(rule, drafts) for rule in route.rules))


def _resolved_rule(rule: Rule, drafts: Drafts) -> Rule:
    return msgspec.structs.replace(rule, backends=tuple(ref for ref in rule.backends if ("cluster", ref.cluster) in drafts))


def _fitting(weights: Weights, route: Route, drafts: Drafts) -> Weights | None:
    named = {rule.name: {ref.cluster for ref in rule.backends if ("cluster", ref.cluster) in drafts} for rule in route.rules}
    if all(rule.weights.keys() <= named.get(rule.rule, set()) for rule in weights.rules) and all(
        rule.rule in named for rule in weights.rules
    ):
        return weights
    rules = tuple(
        RuleWeights(
            rule=rule.rule,
            weights={cluster: weight for cluster, weight in rule.weights.items() if cluster in named[rule.rule]},
        )
        for rule in weights.rules
        if rule.rule in named
    )
    kept = tuple(rule for rule in rules if rule.weights)
    return Weights(name=weights.name, rules=kept) if kept else None


def _withdrawn(previous: SnapshotState, resources: Drafts) -> dict[str, frozenset[str]]:
    """Ids that were there and are not: the source said so, for what it does not know it leaves as it was."""
    result: dict[str, frozenset[str]] = {}
    for key, encoded in resources.items():
        if not isinstance(encoded.resource, Endpoints):
            continue
        name = encoded.resource.name
        before = previous.resources.get(key)
        gone = previous.withdrawn.get(name, frozenset())
        if before is not encoded:
            ids = frozenset(endpoint.id for endpoint in encoded.resource.endpoints)
            lost = _ids(before) - ids
            gone = (gone - ids) | lost
            if len(gone) > max(MIN_WITHDRAWN_KEPT, 4 * len(ids)):
                gone = lost
        if gone:
            result[name] = gone
    return result


def _ids(encoded: EncodedResource | None) -> frozenset[str]:
    if encoded is None or not isinstance(encoded.resource, Endpoints):
        return frozenset()
    return frozenset(endpoint.id for endpoint in encoded.resource.endpoints)
