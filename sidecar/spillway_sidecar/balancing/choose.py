"""From a rule to an endpoint: logical to concrete.

The rule's lowest priority comes first. Within it one backend is drawn by weight; the others follow in order, for when its
endpoints are full or have a queue. Within a backend the endpoint with the best score is picked. Whatever is eliminated on
the way is written down for the decision record.

A request goes past a priority where nothing can take it, where the rule's `fallback` has left it, and where it would wait for longer than
the rule's `spill` allows. The last two never lose a request: when no priority after it can take the request, or none sooner, it stays.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Final, TypeVar

from spillway_sidecar.balancing.diversion import Diversion
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import Backend, CompiledRule, PriorityGroup
from spillway_sidecar.scheduling.filters.eligible import Candidate, Eliminated, eliminate
from spillway_sidecar.scheduling.pickers.drawn import drawn
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import View
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import RequestType

E = TypeVar("E", bound=EndpointState)

# Where an attempt goes, what it was compared with, and why it went past an earlier priority that could have taken it.
Choice = tuple[Backend[Pool[E]], E, list[Candidate], Diversion | None]

SCAN_WAITS: Final = 16  # endpoints of a backend that are looked at for the shortest wait
_NO_ROOM: Final = (Eliminated.FULL, Eliminated.LIMITED)


def choose(
    rule: CompiledRule[Pool[E]],
    request: Facts,
    view: View,
    tried: Collection[E] = (),
    candidates: list[Candidate] | None = None,
) -> Choice[E] | None:
    """Where a request goes, or None when every endpoint is eliminated. Appends what it looked at to `candidates`."""
    diversion: Diversion | None = None
    left: list[PriorityGroup[Pool[E]]] = []  # by a fallback
    waits: list[tuple[float, PriorityGroup[Pool[E]], Backend[Pool[E]], E]] = []  # where a spill is declared
    for group in rule.groups:
        fallback, spill = group.fallback, group.spill
        if fallback is not None and not fallback.passes(view.now, view.random, retry=bool(tried)):
            left.append(group)
            diversion = diversion or fallback.because
            continue
        found = _within(group, rule, request, view, tried, candidates)
        if found is None:
            continue
        if spill is None and not waits:
            return found[0], found[1], [] if candidates is None else candidates, diversion
        wait, backend, target = (found[1].predicted_wait_seconds(view.now), *found)
        if spill is not None and wait > spill.limit_seconds:
            wait, backend, target = min([(wait, backend, target), *_waits(group, request, view, tried)], key=_first)
        waits.append((wait, group, backend, target))
        if spill is None or spill.holds(wait):
            break
    if waits:
        # The first that is in time, if none before it is sooner; the soonest where none is in time.
        soonest = min(waits, key=_first)
        for wait, group, _, _ in waits[: waits.index(soonest)]:
            because = group.spill.spilled(wait, view.now)
            diversion = diversion or because
        return soonest[2], soonest[3], candidates or [], diversion
    for group in left:
        found = _within(group, rule, request, view, tried, candidates)
        if found is not None:
            return (*found, candidates or [], None)
    return None


def _within(
    group: PriorityGroup[Pool[E]],
    rule: CompiledRule[Pool[E]],
    request: Facts,
    view: View,
    tried: Collection[E],
    candidates: list[Candidate] | None,
) -> tuple[Backend[Pool[E]], E] | None:
    """A backend of one priority, and its endpoint."""
    queued: tuple[Backend[Pool[E]], E] | None = None
    backends, profile = group.backends, rule.profile
    alone = len(backends) == 1
    if not alone:
        backends = drawn(backends, profile.shares(backends, request, view), view.random())
    for backend in backends:
        if request.type not in backend.types:
            continue
        request.adapter = backend.model
        target = profile.pick(backend.cluster, request, view, tried, candidates)
        if target is None:
            continue
        if alone or not target.queues(view.now):
            return backend, target
        # Even the best endpoint here has a queue: another backend of this priority may have none.
        if queued is None:
            queued = backend, target
    return queued


def _waits(
    group: PriorityGroup[Pool[E]], request: Facts, view: View, tried: Collection[E]
) -> Iterator[tuple[float, Backend[Pool[E]], E]]:
    """The waits at one priority's endpoints, of many a sample: the one with the best score need not be the one with the shortest wait."""
    for backend in group.backends:
        targets = backend.cluster.targets
        if request.type not in backend.types or not targets:
            continue
        first = int(view.random() * len(targets)) if len(targets) > SCAN_WAITS else 0
        for target in (targets[first:] + targets[:first])[:SCAN_WAITS]:
            if eliminate(target, tried, view.routers, view.now) is None:
                yield target.predicted_wait_seconds(view.now), backend, target


def _first(entry: tuple[float, object, object] | tuple[float, object, object, object]) -> float:
    return entry[0]


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
