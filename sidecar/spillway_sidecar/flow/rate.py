"""How many a second, by a memory that fades: what expected waits and `Retry-After` are computed from."""

from __future__ import annotations

import math
from typing import Final

MEMORY_SECONDS: Final = 5.0
WARM_SECONDS: Final = 0.5  # less than this has shown nothing yet


class Rate:
    """Events per second, of which the last `MEMORY_SECONDS` weigh most. The caller's clock may stand still, and never goes back."""

    __slots__ = ("_at", "_count", "_seen_seconds")

    def __init__(self, at: float) -> None:
        self._at = at
        self._count = 0.0
        self._seen_seconds = 0.0  # the time looked at, faded like the count

    def add(self, at: float) -> None:
        """One more."""
        self._advance(at)
        self._count += 1.0

    def per_second(self, at: float) -> float | None:
        """The rate; None while too little time has been seen."""
        self._advance(at)
        return self._count / self._seen_seconds if self._seen_seconds >= WARM_SECONDS else None

    def _advance(self, at: float) -> None:
        passed = at - self._at
        if passed > 0.0:
            kept = math.exp(-passed / MEMORY_SECONDS)
            self._count *= kept
            self._seen_seconds = self._seen_seconds * kept + MEMORY_SECONDS * (1.0 - kept)
            self._at = at
