"""How long a replica takes from being asked for to being ready, learned from those that were.

Replicas become ready in the order in which they were asked for, as far as anybody can tell from two numbers: each rise of what is asked
for stands in a queue, and each rise of what is ready takes from its head. One that takes longer than any before counts at once, since a
lead that is too short helps nobody; shorter ones bring the figure down slowly.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

UNKNOWN_SECONDS: Final = 120.0  # until one was seen
MAX_SECONDS: Final = 3600.0  # what starts for longer is not starting
_GAIN: Final = 0.1


class Starts:
    """One target's starts. Call `observe` once a tick."""

    def __init__(self) -> None:
        self.learned_seconds: float | None = None
        self._pending: deque[float | None] = deque()  # when each replica that is not ready was asked for; None: before we looked
        self._asked_for: int | None = None
        self._ready = 0

    @property
    def seconds(self) -> float:
        """How long the next one will take."""
        return UNKNOWN_SECONDS if self.learned_seconds is None else self.learned_seconds

    def observe(self, now: float, asked_for: int, ready: int) -> None:
        """What the target says and has at `now`."""
        if self._asked_for is None:
            self._pending.extend([None] * (asked_for - ready))
        else:
            self._pending.extend([now] * (asked_for - self._asked_for))
            for _ in range(min(ready - self._ready, len(self._pending))):
                since = self._pending.popleft()
                if since is not None and now - since <= MAX_SECONDS:
                    self._learn(now - since)
        while len(self._pending) > max(0, asked_for - ready):
            self._pending.pop()  # the latest are taken back first
        self._asked_for, self._ready = asked_for, ready

    def _learn(self, seconds: float) -> None:
        known = self.learned_seconds
        self.learned_seconds = seconds if known is None or seconds > known else known + _GAIN * (seconds - known)

    def info(self) -> dict[str, Any]:
        """What is known, and how many are starting."""
        return {"seconds": round(self.seconds, 1), "learned": self.learned_seconds is not None, "starting": len(self._pending)}
