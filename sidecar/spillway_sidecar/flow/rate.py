"""How many a second, lately: what expected waits and `Retry-After` are computed from.

Lately is the last seconds where much happens, and the last events where little does: of an engine that ends a request every ten seconds,
five seconds tell nothing. After a standstill the seconds tell within five of them that it is over.
"""

from __future__ import annotations

from collections import deque
from typing import Final

SECONDS: Final = 5.0
EVENTS: Final = 8  # at least
MOST_EVENTS: Final = 1024  # then they are of less than the seconds, and tell enough
WARM_SECONDS: Final = 0.5  # less than this has shown nothing yet, nor have fewer events than are counted at least


class Rate:
    """Events per second, of the last ones. The caller's clock may stand still, and never goes back."""

    __slots__ = ("_began", "_times")

    def __init__(self, at: float) -> None:
        self._began = at  # of what is counted: the event before it, or the first look
        self._times: deque[float] = deque()

    def add(self, at: float) -> None:
        """One more."""
        times = self._times
        times.append(at)
        if len(times) > MOST_EVENTS:
            self._began = times.popleft()

    def per_second(self, at: float) -> float | None:
        """The rate; None while too little has been seen."""
        times = self._times
        oldest = at - SECONDS
        while len(times) > EVENTS and times[0] <= oldest:
            self._began = times.popleft()
        seconds = at - max(self._began, oldest) if len(times) > EVENTS else at - self._began
        warm = len(times) >= EVENTS and (seconds >= WARM_SECONDS or len(times) == MOST_EVENTS)
        return len(times) / max(seconds, 1e-6) if warm else None
