"""The requests of one priority that wait at a router, and whose turn it is among their flows.

Tokens are counted as in the Virtual Token Counter of Sheng et al. (OSDI 2024): the flow that has had the fewest is served next. It is
charged with an estimate when it is served, and corrected when the request has ended. A flow that comes back from idling starts
where the least served of the waiting stand, so that nobody saves up by not asking.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import Final, Generic, TypeVar

from spillway_sidecar.flow.rate import Rate

T = TypeVar("T")

MAX_IDLE_FLOWS: Final = 1024


class Flow(Generic[T]):
    """One tenant's requests of one priority, the earliest deadline first."""

    __slots__ = ("_order", "id", "key", "tokens", "waiting")

    def __init__(self, id_: bytes) -> None:
        self.id = id_
        self.tokens = 0  # the virtual counter
        self.key = -1  # under which it stands in its band's heap; -1: nothing of it waits
        self.waiting = 0
        self._order: list[tuple[float, int, Ticket[T]]] = []

    def add(self, ticket: Ticket[T]) -> None:
        """Takes one in."""
        heapq.heappush(self._order, (ticket.turn, ticket.serial, ticket))
        self.waiting += 1

    def head(self) -> Ticket[T]:
        """The earliest deadline. Only while something waits."""
        while not self._order[0][2].waits:
            heapq.heappop(self._order)
        return self._order[0][2]

    def drop(self) -> None:
        """One waits no more. Those that are gone are swept out before they are the more."""
        self.waiting -= 1
        if len(self._order) > 2 * self.waiting + 16:
            self._order = [entry for entry in self._order if entry[2].waits]
            heapq.heapify(self._order)


class Ticket(Generic[T]):
    """One request's place. `waits` until it is taken, evicted or has left. `turn`: its deadline, or what stands for it in its flow."""

    __slots__ = ("arrived", "band", "cost", "flow", "item", "serial", "size_bytes", "turn", "waits")

    def __init__(
        self, item: T, band: Band[T], flow: Flow[T], cost: int, size_bytes: int, turn: float, arrived: float, serial: int
    ) -> None:
        self.item = item
        self.band = band
        self.flow = flow
        self.cost = cost
        self.size_bytes = size_bytes
        self.turn = turn
        self.arrived = arrived
        self.serial = serial
        self.waits = True


class Band(Generic[T]):
    """One priority. `flows` are those in which something waits; idle ones are kept for their count alone."""

    __slots__ = (
        "_by_length",
        "_heap",
        "_newest",
        "_served_tokens",
        "_turn",
        "arrivals",
        "bytes",
        "flows",
        "idle",
        "lately",
        "longest",
        "priority",
        "waiting",
    )

    def __init__(self, priority: int, at: float) -> None:
        self.priority = priority
        self.waiting = 0
        self.bytes = 0
        self.arrivals = Rate(at)
        self.flows: dict[bytes, Flow[T]] = {}
        self.idle: OrderedDict[bytes, Flow[T]] = OrderedDict()
        self.lately = 0  # of what the queue has served last
        self.longest = 0  # most requests that one flow has waiting
        self._by_length: dict[int, dict[Flow[T], None]] = {}
        self._newest: list[Ticket[T]] = []  # by arrival
        self._heap: list[tuple[int, int, Flow[T]]] = []  # by tokens, then by who has had its turn longer ago
        self._served_tokens = 0  # of the flow that was served last
        self._turn = 0

    def flow(self, id_: bytes) -> Flow[T]:
        """The flow of that name, known or not."""
        return self.flows.get(id_) or self.idle.get(id_) or Flow(id_)

    def add(self, ticket: Ticket[T]) -> None:
        """Takes one in."""
        flow = ticket.flow
        if not flow.waiting:
            self.idle.pop(flow.id, None)
            least = self._next()
            flow.tokens = max(flow.tokens, self._served_tokens if least is None else least.tokens)
            self.flows[flow.id] = flow
            self._stand(flow)
        self._length(flow, +1)
        flow.add(ticket)
        self.waiting += 1
        self.bytes += ticket.size_bytes
        self._newest.append(ticket)

    def head(self) -> Ticket[T]:
        """Whose turn it is. Only while something waits."""
        flow = self._next()
        assert flow is not None  # noqa: S101
        return flow.head()

    def drop(self, ticket: Ticket[T]) -> None:
        """It waits no more."""
        ticket.waits = False
        flow = ticket.flow
        self._length(flow, -1)
        flow.drop()
        self.waiting -= 1
        self.bytes -= ticket.size_bytes
        if not flow.waiting:
            del self.flows[flow.id]
            flow.key = -1
            self.idle[flow.id] = flow
            if len(self.idle) > MAX_IDLE_FLOWS:
                self.idle.popitem(last=False)
        if len(self._newest) > 2 * self.waiting + 16:
            self._newest = [ticket for ticket in self._newest if ticket.waits]

    def tickets(self) -> list[Ticket[T]]:
        """All that wait, in the order in which they came."""
        return [ticket for ticket in self._newest if ticket.waits]

    def charge(self, flow: Flow[T], tokens: int) -> None:
        """The flow has had so many tokens more, or fewer than was thought."""
        flow.tokens += tokens
        if flow.waiting:
            self._stand(flow)

    def served(self, ticket: Ticket[T]) -> None:
        """It goes to an endpoint, at what it is thought to cost."""
        self.drop(ticket)
        self.charge(ticket.flow, ticket.cost)
        self._served_tokens = ticket.flow.tokens

    def newest(self) -> Ticket[T]:
        """Who came last. Only while something waits."""
        while not self._newest[-1].waits:
            self._newest.pop()
        return self._newest[-1]

    def newest_of_longest(self) -> Ticket[T]:
        """Who came last of the flow with the most waiting. Only while something waits."""
        longest = next(iter(self._by_length[self.longest]))
        return next(ticket for ticket in reversed(self._newest) if ticket.waits and ticket.flow is longest)

    def _length(self, flow: Flow[T], step: int) -> None:
        """Follows how many of a flow wait, one more or one fewer."""
        length = flow.waiting
        if length:
            flows = self._by_length[length]
            del flows[flow]
            if not flows:
                del self._by_length[length]
        length += step
        if length:
            self._by_length.setdefault(length, {})[flow] = None
        if length > self.longest or self.longest not in self._by_length:
            self.longest = length

    def _stand(self, flow: Flow[T]) -> None:
        self._turn += 1
        flow.key = flow.tokens
        heapq.heappush(self._heap, (flow.tokens, self._turn, flow))
        if len(self._heap) > 2 * len(self.flows) + 16:
            self._heap = [entry for entry in self._heap if entry[2].key == entry[0]]
            heapq.heapify(self._heap)

    def _next(self) -> Flow[T] | None:
        heap = self._heap
        while heap and heap[0][2].key != heap[0][0]:  # charged since, or nothing of it waits
            heapq.heappop(heap)
        return heap[0][2] if heap else None
