"""The picker of the default profile: the endpoint with the shortest predicted wait, as one loop without a scorer between.

With up to `SCAN_ALL` endpoints all are compared; above, `SAMPLE` are drawn, and the homes of the request's prefix join them. Greedy
choice among all is safe here because every router's picture counts its own sends at once.

**Prefixes.** At the home of its prefix a request saves its prefill, so it waits there for the others' only. That bounds the
affinity by the load: the home is left as soon as another place is sooner by more than the prefill. Half is believed of the
second home, which has the prefix when the first was too full before. Where requests have failed since one was answered nothing is saved: who
starts anew has an empty cache.

**A second look.** The picture may be old where the endpoint's own is exact. So a request says how much may wait before it for the next best
not to be the better place, and an inbound listener with more declines; then the choice is made again with what it has told.
A gain below a mean request's work is not worth the way.

An endpoint that was down, or away by its own word, is due for one probe when its time is over: the next request that has
been nowhere yet goes there whatever the waits are, since by its wait it might never be chosen again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, TypeVar

from spillway_sidecar.scheduling.filters.eligible import Candidate, eliminate
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.state import EndpointState

SCAN_ALL: Final = 8
SAMPLE: Final = 4
SECOND_HOME: Final = 0.5  # of the prefill that the first home saves

_NEVER: Final = float("inf")

E = TypeVar("E", bound=EndpointState)


def soonest(
    pool: Pool[E], request: Request, view: View, tried: Collection[E] = (), candidates: list[Candidate] | None = None
) -> E | None:
    """The endpoint to take, or None when every one is eliminated. Appends what it looked at to `candidates`."""
    endpoints = pool.targets
    pool.peers.asked += 1
    homes: tuple[E, E] | None = None
    if request.prefix:
        homes = pool.homes.of(request.prefix)
        if request.shared < 0.0:
            request.shared = pool.prefixes.meets(request.prefix, view.routers)
    if len(endpoints) > SCAN_ALL:
        picked = _best(sample(endpoints, homes or (), view.random), homes, request, view, tried, candidates)
        if picked is not None:
            return picked
        # The sample was out of luck: look at all before saying no.
    return _best(endpoints, homes, request, view, tried, candidates)


def sample(endpoints: Sequence[E], homes: Iterable[E], random: Callable[[], float]) -> Collection[E]:
    """`SAMPLE` of many endpoints, and the homes among them."""
    chosen = dict.fromkeys(homes)
    count, size = len(endpoints), SAMPLE + len(chosen)
    while len(chosen) < size:
        chosen[endpoints[int(random() * count)]] = None
    return chosen


def _best(  # noqa: C901, PLR0912 - one loop over all candidates of every request, without a call that can be spared
    endpoints: Collection[E],
    homes: tuple[E, E] | None,
    request: Request,
    view: View,
    tried: Collection[E],
    candidates: list[Candidate] | None,
) -> E | None:
    routers, now, cost = view.routers, view.now, request.cost
    home, deputy = homes or (None, None)
    saved = request.shared * cost
    best: E | None = None
    best_wait = second_wait = _NEVER
    best_own = 0.0
    ties = 0
    for endpoint in endpoints:
        ahead = endpoint.wait_tokens(routers, now)
        if ahead < 0.0 or tried or endpoint.shut:
            gone = eliminate(endpoint, tried, routers, now)
            if gone is not None:
                if candidates is not None:
                    candidates.append((endpoint.id, gone, ()))
                continue
        own = float(cost)
        if endpoint.failures:
            pass  # it may have lost its cache, and whoever fails fast must not be drawn to by it
        elif endpoint is home:
            own -= saved
        elif endpoint is deputy:
            own -= SECOND_HOME * saved
        wait = (ahead + own) * endpoint.factor
        if candidates is not None:
            candidates.append((endpoint.id, wait, (ahead, own, endpoint.factor)))
        if endpoint.shut and not tried:
            request.limit = 0
            return endpoint  # due for its probe
        if wait < best_wait:
            best = endpoint
            second_wait = best_wait
            best_wait = wait
            best_own = own
            ties = 1
        elif wait == best_wait:
            second_wait = wait
            ties += 1
            if view.random() * ties < 1.0:  # reservoir: each of the tied is as likely
                best, best_own = endpoint, own
        elif wait < second_wait:
            second_wait = wait
    if best is None or second_wait == _NEVER:
        request.limit = 0
    else:
        limit = second_wait / best.factor - best_own + best.speed.mean_cost  # in the best one's own tokens
        request.limit = int(limit) if limit > 1.0 else 1
    return best
