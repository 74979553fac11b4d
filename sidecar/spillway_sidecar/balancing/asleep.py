"""Whether a request finds no replica at all, and for which backend it would wait: one that scales, and has none.

An endpoint that can be asked, or could be but for want of room, is a place to go or to wait for. So is one that was put out by
judgement: it answers. What leaves, says itself that it takes nothing, or cannot be reached is none, also when the time has come to
ask it again: else those who wait would be counted anew with each probe.
"""

from __future__ import annotations

from typing import TypeVar

from spillway_sidecar.routing.table import Backend, CompiledRule
from spillway_sidecar.scheduling.health import Ejection
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import RequestType

E = TypeVar("E", bound=EndpointState)


def is_there(endpoint: EndpointState) -> bool:
    """Whether there is something behind the endpoint that answers, as far as this router knows."""
    return not (endpoint.draining or endpoint.blocked or endpoint.away_until > 0.0 or endpoint.ejected is Ejection.UNREACHABLE)


def wakes(rule: CompiledRule[Pool[E]], request_type: RequestType) -> Backend[Pool[E]] | None:
    """The rule's first backend that scales and serves requests of the type."""
    return next((backend for backend in rule.wakes if request_type in backend.types), None)


def asleep(rule: CompiledRule[Pool[E]], request_type: RequestType) -> Backend[Pool[E]] | None:
    """The backend that requests of the type wait for; None where there is an endpoint, or no backend that holds them."""
    first = wakes(rule, request_type)
    if first is None or any(
        is_there(target)
        for group in rule.groups
        for backend in group.backends
        if request_type in backend.types
        for target in backend.cluster.targets
    ):
        return None
    return first


def asked(rule: CompiledRule[Pool[E]], request_type: RequestType, chosen: Backend[Pool[E]] | None) -> tuple[Pool[E], ...]:
    """The clusters that a request is demand of: the one it goes to, and the one that it would have gone to.

    That is the first that scales, where it goes to a later priority; or to a backend beside it that does not scale while that one
    has no replica. Of several that scale side by side the operator chooses who grows.
    """
    if chosen is not None and rule.wakes and chosen is rule.wakes[0]:  # as nearly always
        return (chosen.cluster,)
    first = wakes(rule, request_type)
    if first is None:
        return ()
    if chosen is None or chosen is first:
        return (first.cluster,)
    own = (chosen.cluster,) if chosen.cluster.arrivals is not None else ()
    if chosen.priority > first.priority:
        return (first.cluster, *own)
    missing = chosen.priority == first.priority and not own and not any(is_there(target) for target in first.cluster.targets)
    return (first.cluster,) if missing else own
