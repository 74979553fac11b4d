"""KVCache: what is free of the engine's KV cache; of its node's memory where the engine has no such cache or does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.scale import filled, fresh
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], _: Pool[Any], __: Request, view: View) -> list[float]:
    """The free share."""
    return filled([_free(endpoint, view.now) for endpoint in endpoints])


def _free(endpoint: EndpointState, now: float) -> float | None:
    load = fresh(endpoint, now)
    if load is None:
        return None
    used = load.kv_cache_ratio if load.kv_cache_ratio is not None else load.memory_ratio
    return None if used is None else 1.0 - used
