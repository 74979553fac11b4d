"""How many requests an endpoint that has just come up is given at first, of those that have waited for it.

It is cold, and perhaps not well: a few find that out, and the others wait a moment longer. In the time of a slow start the few become
all that it runs. Routers share the few.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.scheduling.health import SLOW_START_SECONDS

FIRST_REQUESTS: Final = 8


def ramp(limit: int, routers: int, seconds: float) -> int:
    """How many one router may have under way there, `seconds` after it came; `limit` is all that it runs."""
    if seconds >= SLOW_START_SECONDS:
        return limit
    first = max(1, FIRST_REQUESTS // max(1, routers))
    return first if limit <= first else first + int((limit - first) * max(0.0, seconds) / SLOW_START_SECONDS)
