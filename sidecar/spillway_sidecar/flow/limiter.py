"""Admission before one engine: so many requests at work, so many waiting, the rest refused.

Among those that wait the highest priority goes first, then who came first. Whoever was admitted or queued leaves through `leave`,
once, on any exit; that is what keeps the counts right. The limiter calls nobody: `leave` returns the request that is admitted
in its place.
"""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from spillway_wire.names import Admission

T = TypeVar("T")

# A waiting request, its tokens, its priority, and its number in the order of arrival.
_Place = tuple[T, int, int, int]


class Limiter(Generic[T]):
    """`max_concurrency` admitted and `max_queue` queued requests. Requests are told apart by identity."""

    __slots__ = (
        "_admitted", "_arrivals", "_order", "_queue", "in_flight_tokens", "max_concurrency", "max_queue", "queued_tokens", "refused_total",
    )  # fmt: skip

    def __init__(self, max_concurrency: int, max_queue: int) -> None:
        self.max_concurrency = max_concurrency
        self.max_queue = max_queue
        self._admitted: dict[int, int] = {}
        self._queue: dict[int, _Place[T]] = {}
        self._order: list[tuple[int, int, int]] = []  # priority turned round, arrival, key in `_queue`
        self._arrivals = 0
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

    def enter(self, request: T, tokens: int, priority: int = 0) -> Admission:
        """Asks for a place. A refused request holds nothing and must not `leave`."""
        if len(self._admitted) < self.max_concurrency and not self._queue:
            self._admitted[id(request)] = tokens
            self.in_flight_tokens += tokens
            return Admission.ADMITTED
        if len(self._queue) < self.max_queue:
            self._arrivals += 1
            self._queue[id(request)] = (request, tokens, priority, self._arrivals)
            heapq.heappush(self._order, (-priority, self._arrivals, id(request)))
            self.queued_tokens += tokens
            return Admission.QUEUED
        self.refused_total += 1
        return Admission.REFUSED

    def position(self, priority: int) -> int:
        """How many wait of this priority and above: the place of the one that has just come."""
        return sum(place[2] >= priority for place in self._queue.values())

    def leave(self, request: T) -> list[T]:
        """Gives the place back; returns those that are admitted for it, in their order. A stranger changes nothing."""
        waiting = self._queue.pop(id(request), None)
        if waiting is not None:
            self.queued_tokens -= waiting[1]
            if len(self._order) > 2 * len(self._queue) + 16:
                self._order = [entry for entry in self._order if self._stands(entry)]
                heapq.heapify(self._order)
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

    def _stands(self, entry: tuple[int, int, int]) -> bool:
        """Whether it still waits; another may have come under the same identity."""
        place = self._queue.get(entry[2])
        return place is not None and place[3] == entry[1]

    def _admit(self) -> list[T]:
        admitted: list[T] = []
        while self._queue and len(self._admitted) < self.max_concurrency:
            entry = heapq.heappop(self._order)
            if not self._stands(entry):
                continue
            request, tokens, _, _ = self._queue.pop(entry[2])
            self.queued_tokens -= tokens
            self._admitted[entry[2]] = tokens
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
