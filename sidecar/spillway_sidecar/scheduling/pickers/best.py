"""The picker of profiles with scorers: the endpoint with the highest weighted sum, of all or of a sample of many."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, TypeVar

from spillway_sidecar.scheduling.filters.eligible import Candidate, eliminate
from spillway_sidecar.scheduling.pickers.soonest import SCAN_ALL, sample
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers import EndpointScorer
from spillway_sidecar.scheduling.state import EndpointState

E = TypeVar("E", bound=EndpointState)


def best(
    scorers: Sequence[tuple[EndpointScorer, float]],
    pool: Pool[E],
    request: Request,
    view: View,
    tried: Collection[E] = (),
    candidates: list[Candidate] | None = None,
    keys: Iterable[int] = (),
) -> E | None:
    """The endpoint to take, ties at random, or None when every one is eliminated. Appends what it looked at to `candidates`.

    The homes of `keys` are in every sample, or the affinities would seldom meet theirs.
    """
    pool.peers.asked += 1
    request.limit = 0  # the second look is for the predicted wait alone
    if len(pool.targets) > SCAN_ALL:
        homes = [home for key in keys if key for home in pool.homes.of(key) or ()]
        picked = _best(sample(pool.targets, homes, view.random), scorers, pool, request, view, tried, candidates)
        if picked is not None:
            return picked
    return _best(pool.targets, scorers, pool, request, view, tried, candidates)


def _best(
    endpoints: Collection[E],
    scorers: Sequence[tuple[EndpointScorer, float]],
    pool: Pool[Any],
    request: Request,
    view: View,
    tried: Collection[E],
    candidates: list[Candidate] | None,
) -> E | None:
    eligible: list[E] = []
    for endpoint in endpoints:
        gone = eliminate(endpoint, tried, view.routers, view.now)
        if gone is None:
            if endpoint.shut and not tried:
                return endpoint  # due for its probe
            eligible.append(endpoint)
        elif candidates is not None:
            candidates.append((endpoint.id, gone, ()))
    if not eligible:
        return None
    columns = [score(eligible, pool, request, view) for score, _ in scorers]
    sums = [sum(weight * value for (_, weight), value in zip(scorers, row, strict=True)) for row in zip(*columns, strict=True)]
    if candidates is not None:
        candidates += [(e.id, total, row) for e, total, row in zip(eligible, sums, zip(*columns, strict=True), strict=True)]
    top = max(sums)
    first = [endpoint for endpoint, total in zip(eligible, sums, strict=True) if total >= top]
    return first[int(view.random() * len(first))] if len(first) > 1 else first[0]
