"""The dirty queue: keys that need a look, each at most once, failures later and later.

A key that is marked while it waits is there once. A key that fails comes back after a back-off that doubles from
`base_seconds` to `max_seconds`, with jitter from the injected `rng` so that keys that failed together do not return together;
marking it again (its object changed) brings it back at once, with the back-off kept until it succeeds. Memory is bounded by
the number of distinct keys; the order is first marked, first out.
"""

from __future__ import annotations

import random
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class DirtyQueue(Generic[K]):
    """Keys by the time they are due. Synchronous; the caller passes monotonic `now` and does the waiting."""

    def __init__(self, *, rng: random.Random, base_seconds: float = 0.1, max_seconds: float = 30.0) -> None:
        self._rng = rng
        self._base_seconds = base_seconds
        self._max_seconds = max_seconds
        self._ready: dict[K, None] = {}
        self._delayed: dict[K, float] = {}
        self._failures: dict[K, int] = {}

    def mark(self, key: K) -> None:
        """The key needs a look; it is due at once."""
        self._delayed.pop(key, None)
        self._ready.setdefault(key)

    def drain(self, now: float) -> list[K]:
        """Every key that is due, taken out."""
        for key in [key for key, due in self._delayed.items() if due <= now]:
            self.mark(key)
        keys = list(self._ready)
        self._ready.clear()
        return keys

    def failed(self, key: K, now: float) -> float:
        """The look at `key` failed: it comes back by itself. Returns the delay in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = min(self._max_seconds, self._base_seconds * 2.0 ** min(failures, 30)) * self._rng.uniform(0.75, 1.0)
        if key not in self._ready:
            self._delayed[key] = now + delay
        return delay

    def succeeded(self, key: K) -> None:
        """The look at `key` went well: its back-off starts anew."""
        self._failures.pop(key, None)
        self._delayed.pop(key, None)

    def due_in(self, now: float) -> float | None:
        """Seconds until a key is due, 0 when one is; None when the queue is empty."""
        if self._ready:
            return 0.0
        return max(0.0, min(self._delayed.values()) - now) if self._delayed else None

    def info(self) -> dict[str, Any]:
        """How many keys wait, and which fail."""
        return {"ready": len(self._ready), "delayed": len(self._delayed), "failing": {str(k): n for k, n in self._failures.items()}}
