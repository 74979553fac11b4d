"""Which endpoints may take a request at all."""

from __future__ import annotations

import enum
from collections.abc import Collection

from spillway_sidecar.scheduling.state import EndpointState


class Eliminated(enum.StrEnum):
    """Which filter took an endpoint out."""

    TRIED = "tried"  # this request has been there
    DRAINING = "draining"
    DOWN = "down"
    FULL = "full"
    LIMITED = "limited"  # it has asked for a pause
    BLOCKED = "blocked"  # e.g. its key is missing


# One endpoint in a decision: its id, its score or the filter that eliminated it, and what the score was made of.
Candidate = tuple[str, float | Eliminated, tuple[float, ...]]


def eliminate(endpoint: EndpointState, tried: Collection[object], routers: int, now: float) -> Eliminated | None:
    """The filter that takes the endpoint out, or None. One that is shut for a time gets one probe at a time when it is over."""
    if endpoint.shut and (gone := _shut(endpoint, now)) is not None:
        return gone
    if endpoint.full(routers, now):
        return Eliminated.FULL
    if tried and endpoint in tried:
        return Eliminated.TRIED
    return None


def _shut(endpoint: EndpointState, now: float) -> Eliminated | None:
    if endpoint.draining or now < endpoint.away_until:
        return Eliminated.DRAINING
    if endpoint.blocked:
        return Eliminated.BLOCKED
    if endpoint.limited(now):
        return Eliminated.LIMITED
    if endpoint.probing or now < endpoint.down_until or (endpoint.failures and endpoint.peers.asked < endpoint.probe_from):
        return Eliminated.DOWN
    return None
