"""Admission before one engine: so many requests at work, so many waiting, the rest refused.

The order is first come, first served. Whoever was admitted or queued leaves through `leave`, once, on any exit; that is
what keeps the counts right. The limiter calls nobody: `leave` returns the request that is admitted in its place.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

from spillway_wire.names import Admission

T = TypeVar("T")


class Limiter(Generic[T]):
    """`max_concurrency` admitted and `max_queue` queued requests. Requests are told apart by identity."""

    __slots__ = ("_admitted", "_queue", "in_flight_tokens", "max_concurrency", "max_queue", "queued_tokens", "refused_total")

    def __init__(self, max_concurrency: int, max_queue: int) -> None:
        self.max_concurrency = max_concurrency
        self.max_queue = max_queue
        self._admitted: dict[int, int] = {}
        self._queue: OrderedDict[int, tuple[T, int]] = OrderedDict()
        self.in_flight_tokens = 0
        self.queued_tokens = 0
        self.refused_total = 0

    @property
    def in_flight(self) -> int:
        """Requests at work."""
        return len(self._admitted)

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return len(self._queue)

    def enter(self, request: T, tokens: int) -> Admission:
        """Asks for a place. A refused request holds nothing and must not `leave`."""
        if len(self._admitted) < self.max_concurrency and not self._queue:
            self._admitted[id(request)] = tokens
            self.in_flight_tokens += tokens
            return Admission.ADMITTED
        if len(self._queue) < self.max_queue:
            self._queue[id(request)] = (request, tokens)
            self.queued_tokens += tokens
            return Admission.QUEUED
        self.refused_total += 1
        return Admission.REFUSED

    def leave(self, request: T) -> list[T]:
        """Gives the place back; returns those that are admitted for it, oldest first. A stranger changes nothing."""
        waiting = self._queue.pop(id(request), None)
        if waiting is not None:
            self.queued_tokens -= waiting[1]
            return []
        tokens = self._admitted.pop(id(request), None)
        if tokens is None:
            return []
        self.in_flight_tokens -= tokens
        return self._admit()

    def resize(self, max_concurrency: int, max_queue: int) -> list[T]:
        """Changes the limits; returns those that more room admits. Nobody who is in is thrown out."""
        self.max_concurrency = max_concurrency
        self.max_queue = max_queue
        return self._admit()

    def _admit(self) -> list[T]:
        admitted: list[T] = []
        while self._queue and len(self._admitted) < self.max_concurrency:
            key, (request, tokens) = self._queue.popitem(last=False)
            self.queued_tokens -= tokens
            self._admitted[key] = tokens
            self.in_flight_tokens += tokens
            admitted.append(request)
        return admitted

    def info(self) -> dict[str, int]:
        """The counts."""
        return {
            "in_flight": self.in_flight,
            "queued": self.queued,
            "in_flight_tokens": self.in_flight_tokens,
            "queued_tokens": self.queued_tokens,
            "max_concurrency": self.max_concurrency,
            "max_queue": self.max_queue,
            "refused_total": self.refused_total,
        }
