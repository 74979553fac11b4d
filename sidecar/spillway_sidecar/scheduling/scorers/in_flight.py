"""InFlight: fewest requests of this router under way. It sees nothing of what other routers send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.scale import between
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], _: Pool[Any], __: Request, ___: View) -> list[float]:
    """1 for the fewest, 0 for the most."""
    return between([endpoint.in_flight for endpoint in endpoints])
