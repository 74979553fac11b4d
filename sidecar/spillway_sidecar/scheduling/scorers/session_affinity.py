"""SessionAffinity: requests of one session go to one endpoint, as long as the other scorers do not outweigh it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.at_home import at_home
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], pool: Pool[Any], request: Request, _: View) -> list[float]:
    """1 at the session's home, a half at its deputy, 0 elsewhere and for requests of no session."""
    return at_home(endpoints, pool, request.session)
