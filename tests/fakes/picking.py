"""The default profile's pick, of loose endpoints."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.scheduling.filters.eligible import Candidate
from spillway_sidecar.scheduling.pickers.soonest import soonest
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import EXPECTED_OUTPUT_TOKENS, ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import RequestType


@dataclass
class Chance:
    """A router's view."""

    routers: int
    now: float
    random: Callable[[], float]


def request(cost: int = 100, *, prefix: int = 0, session: int = 0) -> Facts:
    """A request of so many estimated tokens in all."""
    facts = Facts(RequestType.CHAT, "m", True, cost - EXPECTED_OUTPUT_TOKENS, prefix)
    facts.session = session
    return facts


def pick(
    endpoints: Sequence[EndpointState],
    cost: int,
    routers: int,
    now: float,
    random: Callable[[], float],
    tried: Collection[EndpointState] = (),
    candidates: list[Candidate] | None = None,
) -> EndpointState | None:
    """The endpoint that a request of `cost` tokens goes to."""
    if not endpoints:
        return None
    pool = Pool("p", list(endpoints), ClusterSpeed(), endpoints[0].peers)
    return soonest(pool, request(cost), Chance(routers, now, random), tried, candidates)
