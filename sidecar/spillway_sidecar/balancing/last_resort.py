"""Where a request goes when nothing is left but endpoints that others judge badly of: the least bad of them.

Several failures in a row, or fewer successes than elsewhere, may be the requests' own fault; with nothing better to try, an
answer of such an endpoint is better than none. One that cannot be reached, is silent, or has said itself that it takes nothing,
is left alone.

After them come those that the operator lists as not ready, where nothing scales that a request could wait for. When an API server comes back after a
minute, all pods of a node may pass for not ready until its kubelet is heard again, and they are as well as before. Who is really leaving refuses.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeVar

from spillway_sidecar.routing.table import Backend, CompiledRule
from spillway_sidecar.scheduling.health import Ejection
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import RequestType

E = TypeVar("E", bound=EndpointState)
_JUDGED: Final = (Ejection.FAILING, Ejection.OUTLIER)


def least_bad(
    rule: CompiledRule[Pool[E]], request_type: RequestType, routers: int, now: float, tried: Collection[E]
) -> tuple[Backend[Pool[E]], E] | None:
    """The endpoint, of the first priority that has one; None also where one that is well is merely full: then waiting is better."""
    listed: list[tuple[float, Backend[Pool[E]], E]] = []
    for group in rule.groups:
        found: list[tuple[float, Backend[Pool[E]], E]] = []
        for backend in group.backends:
            if request_type not in backend.types:
                continue
            for target in backend.cluster.targets:
                full = target.full(routers, now)
                if not target.shut and full:
                    return None
                if full or target.blocked or target.limited(now) or now < target.away_until or target in tried:
                    continue
                if not target.draining:
                    if target.ejected in _JUDGED or target.doubted:
                        found.append((target.penalty, backend, target))
                elif target.ejected is None and not rule.wakes:
                    listed.append((target.wait_tokens(routers, now), backend, target))
        if found:
            return _least(found)
    return _least(listed) if listed else None


def _least(found: list[tuple[float, Backend[Pool[E]], E]]) -> tuple[Backend[Pool[E]], E]:
    _, backend, target = min(found, key=lambda item: item[0])
    return backend, target
