"""The excess of a priority: what would wait there for longer than the rule allows goes on to the next.

It is decided for each request anew, by the wait that the best endpoint would give it. A priority in overload thus keeps a queue of about
`maxWait` and works at its full rate; what it could not have served in time is the excess, and no more than that goes on. Since every
request that is sent lengthens the predicted wait at once, nothing runs ahead of the reports.

Once requests go on, they do until the wait has fallen to `RETURN_SHARE` of the bound, so that a wait which stands at the bound does not turn each
request another way.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.balancing.diversion import Diversion
from spillway_wire.names import DiversionCause

RETURN_SHARE: Final = 0.8
ACTIVE_SECONDS: Final = 5.0  # after the last one that went on, it counts as over


class Spill:
    """The state of one priority of one rule at one router."""

    __slots__ = ("_because", "_bound", "_spilled_at", "max_wait_seconds", "spilling")

    def __init__(self, max_wait_seconds: float) -> None:
        self.max_wait_seconds = max_wait_seconds
        self.spilling = False
        self._bound = max_wait_seconds  # by which it was decided last
        self._because: Diversion | None = None
        self._spilled_at = -1e9

    @property
    def limit_seconds(self) -> float:
        """The longest wait that is taken at the moment."""
        return RETURN_SHARE * self.max_wait_seconds if self.spilling else self.max_wait_seconds

    def holds(self, wait_seconds: float) -> bool:
        """Whether a request that would wait so long may be given to this priority."""
        self._bound = self.limit_seconds
        self.spilling = wait_seconds > self._bound
        return not self.spilling

    def spilled(self, wait_seconds: float, now: float) -> Diversion:
        """A request that would have waited so long has gone on."""
        because = Diversion(DiversionCause.WAIT, wait_seconds, self._bound)
        if self._because is None or now - self._spilled_at > ACTIVE_SECONDS:
            self._because = because
        self._spilled_at = now
        return because

    def because(self, now: float) -> Diversion | None:
        """Why requests go on, as it was when it began; None when none has for a while."""
        return self._because if now - self._spilled_at <= ACTIVE_SECONDS else None

    def info(self, now: float) -> dict[str, object]:
        """State in figures."""
        because = self.because(now)
        return {
            "max_wait_seconds": self.max_wait_seconds,
            "spilling": self.spilling,
            "because": because.text() if because is not None else None,
        }
