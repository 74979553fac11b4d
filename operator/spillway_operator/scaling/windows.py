"""Values over the last seconds: their mean, and the highest of them.

A window holds what was recorded after `now - span_seconds`. Its memory is bounded by the caller's tick: one entry for each.
"""

from __future__ import annotations

from collections import deque


class Mean:
    """The mean of what was recorded lately."""

    def __init__(self, span_seconds: float) -> None:
        self._span_seconds = span_seconds
        self._entries: deque[tuple[float, float]] = deque()

    def record(self, now: float, value: float) -> None:
        """A value at `now`."""
        self._entries.append((now, value))

    def at(self, now: float) -> float | None:
        """The mean; None where nothing was recorded lately."""
        while self._entries and self._entries[0][0] <= now - self._span_seconds:
            self._entries.popleft()
        return sum(value for _, value in self._entries) / len(self._entries) if self._entries else None

    def reaches_back(self, now: float, seconds: float) -> bool:
        """Whether what is in it began so long ago."""
        return bool(self._entries) and self._entries[0][0] <= now - seconds


class Highest:
    """The highest of what was recorded lately. Entries that a later, higher one hides are dropped at once."""

    def __init__(self, span_seconds: float) -> None:
        self._span_seconds = span_seconds
        self._entries: deque[tuple[float, int]] = deque()

    def record(self, now: float, value: int) -> None:
        """A value at `now`."""
        while self._entries and self._entries[-1][1] <= value:
            self._entries.pop()
        self._entries.append((now, value))

    def at(self, now: float) -> int | None:
        """The highest; None where nothing was recorded lately."""
        while self._entries and self._entries[0][0] <= now - self._span_seconds:
            self._entries.popleft()
        return self._entries[0][1] if self._entries else None
