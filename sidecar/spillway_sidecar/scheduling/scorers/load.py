"""Load: the shortest predicted time to first token over each endpoint's, slowness and failures included (`EndpointState.wait_tokens`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.scale import least
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], _: Pool[Any], request: Request, view: View) -> list[float]:
    """1 for the shortest wait."""
    cost = request.cost
    return least([(endpoint.wait_tokens(view.routers, view.now) + cost) * endpoint.factor for endpoint in endpoints])
