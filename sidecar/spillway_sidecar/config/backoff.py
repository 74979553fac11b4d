"""When to try the operator again. Pure.

Full jitter: a fleet that loses its operator at one moment comes back spread over two seconds. It goes on so for a few tries, since
another replica leads within five seconds and is to be found soon after; then the span is four seconds, because no replica leads while
the API server is away, and what was edited meanwhile is to be on the proxies within five seconds of its return. A proxy that has never
reached the operator in its life starts with a shorter span: its start waits for it, and what starts together is one pod or one machine.
"""

from __future__ import annotations

from random import Random
from typing import Final

FIRST_CONTACT_SPAN_SECONDS: Final = 0.25
SPAN_SECONDS: Final = 2.0
MAX_SPAN_SECONDS: Final = 4.0
STEADY_TRIES: Final = 6  # a second each on average


def delay_seconds(failures: int, *, contacted: bool, rng: Random) -> float:
    """Seconds to wait after a stream ended. `failures`: attempts in a row that brought no message; `contacted`: one ever did."""
    span = SPAN_SECONDS if contacted else FIRST_CONTACT_SPAN_SECONDS
    doublings = max(0, failures - STEADY_TRIES) if contacted else failures
    return rng.uniform(0.0, min(MAX_SPAN_SECONDS, span * 2.0 ** min(doublings, 16)))
