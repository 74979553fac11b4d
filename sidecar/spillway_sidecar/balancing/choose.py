"""From a rule to an endpoint: logical to concrete.

The rule's lowest priority comes first. Within it one backend is drawn by weight; the others follow in order, for when its
endpoints are full or have a queue. Within a backend the endpoint with the best score is picked. Whatever is eliminated on
the way is written down for the decision record.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Final, TypeVar

from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import Backend, CompiledRule
from spillway_sidecar.scheduling.picker import Candidate, Eliminated, eliminate
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import View
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import RequestType

E = TypeVar("E", bound=EndpointState)

# Where an attempt goes, and what it was compared with.
Choice = tuple[Backend[Pool[E]], E, list[Candidate]]

_NO_ROOM: Final = (Eliminated.FULL, Eliminated.LIMITED)


def choose(
    rule: CompiledRule[Pool[E]],
    request: Facts,
    view: View,
    tried: Collection[E] = (),
    candidates: list[Candidate] | None = None,
) -> Choice[E] | None:
    """Where a request goes, or None when every endpoint is eliminated. Appends what it looked at to `candidates`."""
    now, request_type, pick = view.now, request.type, rule.profile.pick
    queued: Choice[E] | None = None
    for group in rule.groups:
        backends = group.backends
        alone = len(backends) == 1
        if not alone:
            backends = _by_weight(backends, view.random())
        for backend in backends:
            if request_type not in backend.types:
                continue
            target = pick(backend.cluster, request, view, tried, candidates)
            if target is None:
                continue
            if alone or not target.queues(now):
                return backend, target, candidates or []
            # Even the best endpoint here has a queue: another backend of this priority may have none.
            if queued is None:
                queued = backend, target, candidates or []
        if queued is not None:
            return queued
    return None


def supports(rule: CompiledRule[Pool[E]], request_type: RequestType) -> bool:
    """Whether any of the rule's backends serves such requests; a rule without backends refuses none by their type."""
    return not rule.groups or any(request_type in backend.types for group in rule.groups for backend in group.backends)


def endpoints(rule: CompiledRule[Pool[E]]) -> Iterator[E]:
    """Every endpoint of the rule."""
    return (target for group in rule.groups for backend in group.backends for target in backend.cluster.targets)


def any_full(rule: CompiledRule[Pool[E]], view: View) -> bool:
    """Whether there are endpoints, and it is for want of room that one was not chosen."""
    return any(_full(target, view) for target in endpoints(rule))


def any_open(rule: CompiledRule[Pool[E]], view: View, tried: Collection[E]) -> bool:
    """Whether an endpoint that has not been tried could take a request."""
    return any(eliminate(target, tried, view.routers, view.now) is None for target in endpoints(rule))


def seconds_to_room(rule: CompiledRule[Pool[E]], view: View) -> int:
    """Whole seconds until the first that has asked for a pause may be asked again; 1 where one is merely full."""
    waits = (target.limited_until - view.now for target in endpoints(rule) if _full(target, view))
    return max(1, math.ceil(min(waits, default=0)))


def _full(target: EndpointState, view: View) -> bool:
    return eliminate(target, (), view.routers, view.now) in _NO_ROOM


def _by_weight(backends: tuple[Backend[Pool[E]], ...], draw: float) -> tuple[Backend[Pool[E]], ...]:
    """The backends with one drawn by weight in front; the others follow in order, for when it has no room."""
    total = 0.0
    for backend in backends:
        total += backend.weight
    point = draw * total
    for index, backend in enumerate(backends):
        point -= backend.weight
        if point < 0.0:
            return (backend, *backends[:index], *backends[index + 1 :]) if index else backends
    return backends
