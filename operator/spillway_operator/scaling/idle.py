"""How long nobody has asked for anything."""

from __future__ import annotations


class Idle:
    """One backend's silence. What is not known is no silence."""

    def __init__(self, now: float) -> None:
        self._busy_at = now

    def observe(self, now: float, *, busy: bool | None) -> None:
        """Whether there was a request, or one is under way; None: nobody knows."""
        if busy is not False:
            self._busy_at = now

    def seconds(self, now: float) -> float:
        """Since the last request."""
        return now - self._busy_at
