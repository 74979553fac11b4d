"""QueueDepth: requests that wait before and in the engine, as it reports, and what this router has sent since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.scale import between, filled, fresh
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], _: Pool[Any], __: Request, view: View) -> list[float]:
    """1 for the shortest queue, 0 for the longest."""
    return between(filled([_queue(endpoint, view) for endpoint in endpoints]))


def _queue(endpoint: EndpointState, view: View) -> float | None:
    load = fresh(endpoint, view.now)
    return None if load is None else load.queued + (load.engine_waiting or 0) + endpoint.sent_since
