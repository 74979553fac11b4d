"""The bounded queue in which requests wait at a router while every endpoint has enough to do.

Who goes next: the highest **priority**, in it the **flow** that has had the fewest tokens, in that the earliest deadline.

Who is let in: whoever would wait past the deadline, as the queue empties, is **rejected** at once. So is one that meets a full queue, unless
somebody gives way to it: the newest of the lowest priority below its own; else, in its own priority, the newest of the flow with the
most waiting, if that has more than its own. Those are **evicted**. So a flow may fill the queue, and cannot keep it from others.

The time that counts for rates is that in which something waits: a queue that is empty says nothing of how quickly it empties. Nor does one
that stands still, since there is nobody to take from it: then nobody is rejected for the time that is left to it.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from spillway_sidecar.flow.band import Band, Flow, Ticket
from spillway_sidecar.flow.rate import Rate

T = TypeVar("T")

MAX_RETRY_AFTER_SECONDS: Final = 60
LATELY: Final = 256  # requests that were served last
LEAST_LATELY: Final = 32
LEAST_SHARE: Final = 0.02  # of the rate, left over by higher priorities: with less there is no telling


@dataclass(frozen=True, slots=True)
class Rejection:
    """Not let in. Another try makes sense after so many seconds."""

    retry_after_seconds: int


class FairQueue(Generic[T]):
    """At most `max_requests` and `max_bytes` wait. Whoever was let in leaves through `take`, `remove` or as one of the evicted."""

    __slots__ = (
        "_busy_before", "_busy_since", "_departures", "_lately", "_serial", "bands", "bytes", "evicted_total", "max_bytes", "max_requests", "rejected_total",
        "still", "taken_total", "waiting",
    )  # fmt: skip

    def __init__(self, max_requests: int, max_bytes: int) -> None:
        self.max_requests = max_requests
        self.max_bytes = max_bytes
        self.waiting = 0
        self.bytes = 0
        self.bands: dict[int, Band[T]] = {}  # the highest priority first
        self.taken_total = 0
        self.rejected_total = 0
        self.evicted_total = 0
        self.still = False
        self._departures = Rate(0.0)
        self._lately: deque[Band[T]] = deque()
        self._busy_before = 0.0
        self._busy_since = 0.0
        self._serial = 0

    def offer(
        self,
        item: T,
        *,
        priority: int,
        flow_id: bytes,
        cost: int,
        size_bytes: int,
        deadline: float,
        now: float,
        turn: float | None = None,
    ) -> tuple[Ticket[T] | Rejection, list[T]]:
        """A place, or why not; and those that are evicted for it. `turn`: what its flow orders it by, in place of the deadline."""
        band = self.bands.get(priority) or self._band(priority, now)
        flow = band.flow(flow_id)
        band.arrivals.add(self._busy_seconds(now))
        late = self.waiting and now + self.expected_wait_seconds(band, flow, now) > deadline
        if late or not self._room_can_be_made(band, flow, size_bytes):
            self.rejected_total += 1
            return Rejection(self.retry_after_seconds(priority, now)), []
        evicted = self._make_room(band, size_bytes, now)
        if not self.waiting:
            self._busy_since = now
        self._serial += 1
        ticket = Ticket(item, band, flow, cost, size_bytes, deadline if turn is None else turn, now, self._serial)
        band.add(ticket)
        self.waiting += 1
        self.bytes += size_bytes
        return ticket, evicted

    def head(self) -> Ticket[T] | None:
        """Whose turn it is."""
        for band in self.bands.values():
            if band.waiting:
                return band.head()
        return None

    def take(self, ticket: Ticket[T], now: float) -> None:
        """It goes to an endpoint."""
        self._departures.add(self._busy_seconds(now))
        ticket.band.served(ticket)
        self._lately.append(ticket.band)
        ticket.band.lately += 1
        if len(self._lately) > LATELY:
            self._lately.popleft().lately -= 1
        self._gone(ticket, now)
        self.taken_total += 1

    def share_above(self, priority: int) -> float:
        """Of what was served lately the share that was of a higher priority; 0 while too little has been."""
        above = 0
        for band in self.bands.values():
            if band.priority <= priority:
                break
            above += band.lately
        return above / len(self._lately) if above and len(self._lately) >= LEAST_LATELY else 0.0

    def remove(self, ticket: Ticket[T], now: float) -> None:
        """It has left of its own accord, or has waited long enough."""
        if ticket.waits:
            ticket.band.drop(ticket)
            self._gone(ticket, now)

    def correct(self, ticket: Ticket[T], tokens: int) -> None:
        """One that was taken has ended, and has cost so many tokens."""
        ticket.band.charge(ticket.flow, tokens - ticket.cost)
        ticket.cost = tokens

    def stand_still(self, now: float) -> None:
        """Nobody is there to take from it."""
        self._busy_before = self._busy_seconds(now)
        self.still = True

    def go_on(self, now: float) -> None:
        """Somebody is."""
        self._busy_since = now
        self.still = False

    def expected_wait_seconds(self, band: Band[T], flow: Flow[T], now: float) -> float:
        """How long one more request of the flow waits; 0 while too little has been seen, infinite where no rate is left for it."""
        flows = len(band.flows) + (0 if flow.waiting else 1)
        return self._seconds_for(band.priority, min(band.waiting, (flow.waiting + 1) * flows - 1) + 1, now)

    def retry_after_seconds(self, priority: int, now: float) -> int:
        """Whole seconds until what waits in this priority and above has gone."""
        band = self.bands.get(priority)
        seconds = self._seconds_for(priority, band.waiting if band is not None else 0, now)
        return max(1, math.ceil(min(seconds, MAX_RETRY_AFTER_SECONDS)))

    def _seconds_for(self, priority: int, ahead: int, now: float) -> float:
        """Time in which `ahead` requests of the priority, and all above it, are served. What goes on arriving above takes of the rate."""
        busy = self._busy_seconds(now)
        rate = self._departures.per_second(busy)
        if rate is None or self.still:
            return 0.0
        left = rate
        for band in self.bands.values():
            if band.priority <= priority:
                break
            ahead += band.waiting
            left -= band.arrivals.per_second(busy) or 0.0
        return ahead / left if left > rate * LEAST_SHARE else math.inf if ahead else 0.0

    def _band(self, priority: int, now: float) -> Band[T]:
        band = Band[T](priority, self._busy_seconds(now))
        self.bands = dict(sorted({**self.bands, priority: band}.items(), reverse=True))
        return band

    def _room_can_be_made(self, band: Band[T], flow: Flow[T], size_bytes: int) -> bool:
        waiting, size = self.waiting, self.bytes + size_bytes
        if waiting < self.max_requests and size <= self.max_bytes:
            return True
        for other in self.bands.values():
            if other.priority < band.priority:
                waiting -= other.waiting
                size -= other.bytes
        if band.longest > flow.waiting + 1:
            waiting -= 1
            size -= band.newest_of_longest().size_bytes
        return waiting < self.max_requests and size <= self.max_bytes

    def _make_room(self, band: Band[T], size_bytes: int, now: float) -> list[T]:
        """Evicts until the request fits. Only where room can be made."""
        evicted: list[T] = []
        while self.waiting >= self.max_requests or self.bytes + size_bytes > self.max_bytes:
            lowest = next(other for other in reversed(self.bands.values()) if other.waiting)
            victim = lowest.newest() if lowest.priority < band.priority else band.newest_of_longest()
            self.remove(victim, now)
            self.evicted_total += 1
            evicted.append(victim.item)
        return evicted

    def _gone(self, ticket: Ticket[T], now: float) -> None:
        self.waiting -= 1
        self.bytes -= ticket.size_bytes
        if not self.waiting and not self.still:
            self._busy_before += max(0.0, now - self._busy_since)

    def _busy_seconds(self, now: float) -> float:
        """All the time in which something waited."""
        return self._busy_before + (max(0.0, now - self._busy_since) if self.waiting and not self.still else 0.0)

    def info(self) -> dict[str, object]:
        """The counts."""
        return {
            "waiting": self.waiting,
            "bytes": self.bytes,
            "max_requests": self.max_requests,
            "max_bytes": self.max_bytes,
            "taken_total": self.taken_total,
            "rejected_total": self.rejected_total,
            "evicted_total": self.evicted_total,
            "bands": {
                band.priority: {"waiting": band.waiting, "flows": len(band.flows), "idle_flows": len(band.idle)}
                for band in self.bands.values()
            },
        }
