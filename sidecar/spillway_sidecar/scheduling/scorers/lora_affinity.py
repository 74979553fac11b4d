"""LoRAAffinity: endpoints that have the adapter loaded which the request asks for by its model's name.

Where none reports it, the adapter's home is where it is to be loaded, so that it is not loaded everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.at_home import at_home
from spillway_sidecar.scheduling.scorers.scale import fresh
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], pool: Pool[Any], request: Request, view: View) -> list[float]:
    """1 where the adapter is loaded; where it is loaded nowhere, 1 at its home and a half at the deputy."""
    loaded = [
        1.0 if (load := fresh(endpoint, view.now)) is not None and request.adapter in load.adapters else 0.0
        for endpoint in endpoints
    ]
    return loaded if any(loaded) else at_home(endpoints, pool, key_of(request))


def key_of(request: Request) -> int:
    """The key that leads to the adapter's home."""
    return crc32(request.adapter.encode()) or 1
