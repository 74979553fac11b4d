"""Round robin: one endpoint after the other, whatever their load. For comparison; every other picker does better."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from spillway_sidecar.scheduling.filters.eligible import Candidate, eliminate
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.state import EndpointState

E = TypeVar("E", bound=EndpointState)


def in_turn(
    pool: Pool[E], request: Request, view: View, tried: Collection[E] = (), candidates: list[Candidate] | None = None
) -> E | None:
    """The next endpoint that may take a request, or None. Appends what it looked at to `candidates`."""
    pool.peers.asked += 1
    request.limit = 0
    count = len(pool.targets)
    for _ in range(count):
        pool.turn = (pool.turn + 1) % count
        endpoint = pool.targets[pool.turn]
        gone = eliminate(endpoint, tried, view.routers, view.now)
        if candidates is not None:
            candidates.append((endpoint.id, 1.0 if gone is None else gone, ()))
        if gone is None:
            return endpoint
    return None
