"""Latency: the shortest usual time to first token of such a request over each backend's, as this router has seen them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.scale import filled, least


def score(pools: Sequence[Pool[Any]], request: Request, _: View) -> list[float]:
    """1 for the quickest."""
    return least(filled([pool.speed.first_token_seconds(request.prompt_tokens) or None for pool in pools]))
