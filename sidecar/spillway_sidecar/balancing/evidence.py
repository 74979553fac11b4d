"""What one router has met at one priority of a rule lately: attempts, those that failed, those that were slow.

A window of `WINDOW_SECONDS` in half-second slots with running sums: taking a sample in is O(1), and reading is three integers. Slow is
counted rather than kept as times, since the 95th percentile is over a limit exactly when more than one in twenty is.
"""

from __future__ import annotations

from typing import Final

WINDOW_SECONDS: Final = 10.0
_SLOTS: Final = 20
_PER_SECOND: Final = _SLOTS / WINDOW_SECONDS


class Evidence:
    """Counts over the last `WINDOW_SECONDS` of a monotonic clock."""

    __slots__ = ("_slot", "_slots", "failed", "samples", "slow")

    def __init__(self) -> None:
        self.samples = 0
        self.failed = 0
        self.slow = 0
        self._slot = 0
        self._slots = [(0, 0, 0)] * _SLOTS

    def add(self, now: float, *, samples: int = 1, failed: int = 0, slow: int = 0) -> None:
        """Counts one attempt, or what came of one that was counted before (`samples` 0)."""
        self.forget(now)
        index = self._slot % _SLOTS
        before = self._slots[index]
        self._slots[index] = (before[0] + samples, before[1] + failed, before[2] + slow)
        self.samples += samples
        self.failed += failed
        self.slow += slow

    def forget(self, now: float) -> None:
        """Lets go of what is older than the window."""
        slot = int(now * _PER_SECOND)
        gone = slot - self._slot
        if gone <= 0:
            return
        for step in range(1, min(gone, _SLOTS) + 1):
            index = (self._slot + step) % _SLOTS
            samples, failed, slow = self._slots[index]
            self.samples -= samples
            self.failed -= failed
            self.slow -= slow
            self._slots[index] = (0, 0, 0)
        self._slot = slot

    def clear(self) -> None:
        """Begins anew."""
        self.samples = self.failed = self.slow = 0
        self._slots = [(0, 0, 0)] * _SLOTS
