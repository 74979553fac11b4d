"""The router's queue against a plain list: order, bounds, that nothing is lost or served twice, and that its state is bounded."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from spillway_sidecar.flow.band import Ticket
from spillway_sidecar.flow.fair_queue import FairQueue

MAX_REQUESTS = 6
MAX_BYTES = 100


class FairQueueModel(RuleBasedStateMachine):
    """Requests come, are served, leave and end."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: FairQueue[int] = FairQueue(MAX_REQUESTS, MAX_BYTES)
        self.waiting: dict[int, Ticket[int]] = {}
        self.taken: list[Ticket[int]] = []
        self.now = 0.0
        self.next = 0

    @rule(
        priority=st.integers(-1, 1),
        flow=st.sampled_from([b"", b"a", b"b", b"c"]),
        cost=st.integers(1, 500),
        size=st.integers(0, 120),
        patience=st.floats(0.0, 20.0),
    )
    def offer(self, priority: int, flow: bytes, cost: int, size: int, patience: float) -> None:
        self.next += 1
        before = dict(self.waiting)
        result, evicted = self.queue.offer(
            self.next, priority=priority, flow_id=flow, cost=cost, size_bytes=size, deadline=self.now + patience, now=self.now
        )
        for item in evicted:
            victim = self.waiting.pop(item)
            assert not victim.waits
            assert victim.band.priority <= priority
        if isinstance(result, Ticket):
            self.waiting[self.next] = result
            fitted = len(before) < MAX_REQUESTS and sum(t.size_bytes for t in before.values()) + size <= MAX_BYTES
            assert not (fitted and evicted), "nobody gives way where there is room"
        else:
            assert not evicted, "nobody is evicted in vain"
            assert 1 <= result.retry_after_seconds <= 60

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        ticket = self.queue.head()
        assert ticket is not None
        assert self.waiting.pop(ticket.item) is ticket
        rivals = [other for other in self.waiting.values() if other.band.priority >= ticket.band.priority]
        assert all(other.band is ticket.band for other in rivals), "the highest priority first"
        assert all(ticket.flow.tokens <= other.flow.tokens for other in rivals), "then the flow with the fewest tokens"
        own = [other for other in rivals if other.flow is ticket.flow]
        assert all((ticket.turn, ticket.serial) < (other.turn, other.serial) for other in own), "then the deadline"
        self.queue.take(ticket, self.now)
        self.taken.append(ticket)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(sorted(self.waiting)))
        ticket = self.waiting.pop(item)
        self.queue.remove(ticket, self.now)
        self.queue.remove(ticket, self.now)  # twice is once

    @precondition(lambda self: self.taken)
    @rule(tokens=st.integers(0, 2000))
    def end(self, tokens: int) -> None:
        self.queue.correct(self.taken.pop(), tokens)

    @rule(seconds=st.floats(0.0, 5.0))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def counts_agree(self) -> None:
        assert self.queue.waiting == len(self.waiting) <= MAX_REQUESTS
        assert self.queue.bytes == sum(ticket.size_bytes for ticket in self.waiting.values()) <= MAX_BYTES
        for band in self.queue.bands.values():
            own = [ticket for ticket in self.waiting.values() if ticket.band is band]
            lengths = {flow.id: flow.waiting for flow in band.flows.values()}
            assert band.waiting == len(own) == sum(lengths.values())
            assert band.longest == max(lengths.values(), default=0)
            assert band.idle.keys().isdisjoint(band.flows)


TestFairQueue = FairQueueModel.TestCase
TestFairQueue.settings = settings(max_examples=60, stateful_step_count=40)
