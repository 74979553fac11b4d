"""Who is at home for a key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.state import EndpointState

DEPUTY: Final = 0.5


def at_home(endpoints: Sequence[EndpointState], pool: Pool[Any], key: int) -> list[float]:
    """1 for the key's home, `DEPUTY` for the one that takes over, 0 for others; all 0 where there is no key."""
    homes = pool.homes.of(key) if key else None
    if homes is None:
        return [0.0] * len(endpoints)
    home, deputy = homes
    return [1.0 if endpoint is home else DEPUTY if endpoint is deputy else 0.0 for endpoint in endpoints]
