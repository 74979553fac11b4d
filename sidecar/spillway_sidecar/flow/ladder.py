"""What the proxy itself leaves out when it has more to do than it can: an overload ladder, by how late the event loop is.

| level | when the loop is late by | then |
| --- | --- | --- |
| 0 `normal` | less | everything |
| 1 `lean` | `LEAN_SECONDS` | no decision records |
| 2 `shedding` | `SHED_SECONDS` | new requests are refused, a share of them that grows while it lasts; those under way go on |
| 3 `closed` | `CLOSED_SECONDS` | new connections are refused too |

One late turn is a stall and no overload, whatever took it. So the lateness that counts is the least of the last `LOOKS`: that is the
queue that stands. Where the loop has slept between two looks no queue stands, however late the second came: the machine had given
its time to others, and fewer requests would not bring it back. The way down is slower than the way up.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final

LOOK_SECONDS: Final = 0.05
LOOKS: Final = 5
LEAN_SECONDS: Final = 0.05
SHED_SECONDS: Final = 0.2
CLOSED_SECONDS: Final = 1.0
SHED_UP: Final = 0.1
SHED_DOWN: Final = 0.02
MAX_SHED: Final = 0.95  # some pass, or nothing would tell that it is over
STALL_SECONDS: Final = 0.25


class Level(IntEnum):
    """How far up the ladder."""

    NORMAL = 0
    LEAN = 1
    SHEDDING = 2
    CLOSED = 3


class Ladder:
    """State of one event loop. `shed` is the share of new requests to refuse."""

    __slots__ = ("_late", "late_total_seconds", "level", "longest_stall_seconds", "shed", "stalls_total", "standing_seconds")

    def __init__(self) -> None:
        self._late: deque[float] = deque([0.0] * LOOKS, maxlen=LOOKS)
        self.level = Level.NORMAL
        self.shed = 0.0
        self.standing_seconds = 0.0
        self.stalls_total = 0
        self.longest_stall_seconds = 0.0
        self.late_total_seconds = 0.0

    def look(self, late_seconds: float, *, slept: bool = False) -> bool:
        """Takes in how late a look came, and whether the loop has slept since the last. Returns whether that was a stall."""
        late_seconds = max(0.0, late_seconds)
        self.late_total_seconds += late_seconds
        self._late.append(0.0 if slept else late_seconds)
        standing = self.standing_seconds = min(self._late)
        self.level = (
            Level.CLOSED
            if standing >= CLOSED_SECONDS
            else Level.SHEDDING
            if standing >= SHED_SECONDS
            else Level.LEAN
            if standing >= LEAN_SECONDS
            else Level.NORMAL
        )
        if self.level >= Level.SHEDDING:
            self.shed = min(MAX_SHED, self.shed + SHED_UP)
        elif self.shed:
            self.shed = max(0.0, self.shed - SHED_DOWN)
        stalled = late_seconds >= STALL_SECONDS
        if stalled:
            self.stalls_total += 1
            self.longest_stall_seconds = max(self.longest_stall_seconds, late_seconds)
        return stalled

    def info(self) -> dict[str, object]:
        """State in figures."""
        return {
            "level": self.level.name.lower(),
            "shed_ratio": round(self.shed, 3),
            "standing_seconds": round(self.standing_seconds, 4),
            "stalls_total": self.stalls_total,
            "longest_stall_seconds": round(self.longest_stall_seconds, 4),
        }
