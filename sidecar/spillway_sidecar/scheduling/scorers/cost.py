"""Cost: the lowest price of such a request over each backend's, by the declared prices of input and output tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.scale import filled, least


def score(pools: Sequence[Pool[Any]], request: Request, _: View) -> list[float]:
    """1 for the cheapest."""
    return least(filled([_price(pool, request) for pool in pools]))


def _price(pool: Pool[Any], request: Request) -> float | None:
    if pool.cost is None:
        return None
    of_input, of_output = pool.cost
    return of_input * request.prompt_tokens + of_output * (request.cost - request.prompt_tokens)
