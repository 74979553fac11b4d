"""Filter and pick: the eligible endpoints of a cluster, then the best score among all, or among a sample of many.

With up to `SCAN_ALL` endpoints all are compared; above, `SAMPLE` are drawn. Greedy choice among all is safe here because
every router's score counts its own sends at once and multiplies them by the number of routers.

An endpoint that was down, or away by its own word, is due for one probe when its time is over: the next request that has
been nowhere yet goes there whatever the scores are, since by its score it might never be chosen again.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Sequence
from typing import Final, TypeVar

from spillway_sidecar.scheduling.state import EndpointState

SCAN_ALL: Final = 8
SAMPLE: Final = 4

E = TypeVar("E", bound=EndpointState)


class Eliminated(enum.StrEnum):
    """Which filter took an endpoint out."""

    TRIED = "tried"  # this request has been there
    DRAINING = "draining"
    DOWN = "down"
    FULL = "full"
    LIMITED = "limited"  # it has asked for a pause
    BLOCKED = "blocked"  # e.g. its key is missing


# One endpoint in a decision: its id, and its score or the filter that eliminated it.
Candidate = tuple[str, float | Eliminated]


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
    if endpoint.probing or now < endpoint.down_until:
        return Eliminated.DOWN
    return None


def pick(
    endpoints: Sequence[E],
    cost: int,
    routers: int,
    now: float,
    random: Callable[[], float],
    tried: Collection[E] = (),
    candidates: list[Candidate] | None = None,
) -> E | None:
    """The endpoint to take, or None when every one is eliminated. Appends what it looked at to `candidates`."""
    count = len(endpoints)
    if count > SCAN_ALL:
        picked = _best(_sample(endpoints, count, random), cost, routers, now, random, tried, candidates)
        if picked is not None:
            return picked
        # The sample was out of luck: look at all before saying no.
    return _best(endpoints, cost, routers, now, random, tried, candidates)


def _sample(endpoints: Sequence[E], count: int, random: Callable[[], float]) -> list[E]:
    chosen: dict[int, E] = {}
    while len(chosen) < SAMPLE:
        index = int(random() * count)
        chosen[index] = endpoints[index]
    return list(chosen.values())


def _best(
    endpoints: Sequence[E],
    cost: int,
    routers: int,
    now: float,
    random: Callable[[], float],
    tried: Collection[E],
    candidates: list[Candidate] | None,
) -> E | None:
    best: E | None = None
    best_score = 0.0
    ties = 1
    for endpoint in endpoints:
        tokens = endpoint.open_tokens(routers, now)
        if tokens < 0 or tried or endpoint.shut:
            gone = eliminate(endpoint, tried, routers, now)
            if gone is not None:
                if candidates is not None:
                    candidates.append((endpoint.id, gone))
                continue
        score = endpoint.relative_wait(tokens, cost, routers)
        if candidates is not None:
            candidates.append((endpoint.id, score))
        if endpoint.shut and not tried:
            return endpoint  # due for its probe
        if best is None or score < best_score:
            best, best_score, ties = endpoint, score, 1
        elif score == best_score:
            ties += 1
            if random() * ties < 1.0:  # reservoir: each of the tied is as likely
                best = endpoint
    return best
