"""Whether prompts of a pool begin alike: only then is it worth anything to keep those that do together.

A key that was met before is shared, and its home has it in its cache. One that was not may be the first of many or the only one: as
likely as this pool's keys have lately turned out to be shared, and as any of the other routers may have met it.
"""

from __future__ import annotations

from typing import Final

REMEMBERED: Final = 4096  # keys in each of two generations
GAIN: Final = 0.02


class Recurrence:
    """Keys met lately, and how many of them had been met before."""

    __slots__ = ("_older", "_recent", "ratio")

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._older: set[int] = set()
        self.ratio = 0.0

    def meets(self, key: int, routers: int) -> float:
        """How likely the key is shared: 1 for one that was met before. Asked once a request."""
        before = key in self._recent or key in self._older
        ratio = self.ratio
        self.ratio = ratio + GAIN * (before - ratio)
        if before:
            return 1.0
        self._recent.add(key)
        if len(self._recent) >= REMEMBERED:
            self._older, self._recent = self._recent, set()
        return 1.0 - float((1.0 - ratio) ** routers)
