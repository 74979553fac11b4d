"""How many a second, by a memory that fades: what expected waits and `Retry-After` are computed from.

The memory is of seconds where much happens and of events where little does: of an engine that ends a request every ten seconds, five
seconds tell nothing.
"""

from __future__ import annotations

import math
from typing import Final

MEMORY_SECONDS: Final = 5.0
MEMORY_EVENTS: Final = 8  # at least
WARM_SECONDS: Final = 0.5  # less than this has shown nothing yet, nor have fewer events than are to be remembered


class Rate:
    """Events per second, of which the last weigh most. The caller's clock may stand still, and never goes back."""

    __slots__ = ("_at", "_count", "_seen_seconds", "_total")

    def __init__(self, at: float) -> None:
        self._at = at
        self._count = 0.0
        self._seen_seconds = 0.0  # the time looked at, faded like the count
        self._total = 0

    def add(self, at: float) -> None:
        """One more."""
        self._advance(at)
        self._count += 1.0
        self._total += 1

    def per_second(self, at: float) -> float | None:
        """The rate; None while too little has been seen."""
        self._advance(at)
        warm = self._total >= MEMORY_EVENTS and self._seen_seconds >= WARM_SECONDS
        return self._count / self._seen_seconds if warm else None

    def _advance(self, at: float) -> None:
        passed = at - self._at
        if passed > 0.0:
            memory = MEMORY_SECONDS
            if self._count * memory < MEMORY_EVENTS * self._seen_seconds:  # so few that they are further apart
                memory = MEMORY_EVENTS * self._seen_seconds / self._count if self._count else math.inf
            kept = math.exp(-passed / memory)
            self._count *= kept
            self._seen_seconds = self._seen_seconds * kept + (memory * (1.0 - kept) if memory < math.inf else passed)
            self._at = at
