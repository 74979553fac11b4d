"""PrefixAffinity: the homes of the prompt's start, which have it in their KV cache, as far as it is likely that others begin alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.at_home import at_home
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], pool: Pool[Any], request: Request, view: View) -> list[float]:
    """Up to 1 at the home, half of that at its deputy, 0 elsewhere and for prompts that are too short."""
    if not request.prefix:
        return [0.0] * len(endpoints)
    if request.shared < 0.0:
        request.shared = pool.prefixes.meets(request.prefix, view.routers)
    return [request.shared * value for value in at_home(endpoints, pool, request.prefix)]
