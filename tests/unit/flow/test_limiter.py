"""The limiter: bounds, order, and that nothing is ever lost or counted twice."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from spillway_sidecar.flow.limiter import Limiter
from spillway_wire.names import Admission


class Request:
    """Told apart by identity."""

    def __init__(self, tokens: int, priority: int) -> None:
        self.tokens = tokens
        self.priority = priority


class LimiterModel(RuleBasedStateMachine):
    """Against two plain lists."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.limiter: Limiter[Request] = Limiter(2, 2)
        self.working: list[Request] = []
        self.waiting: list[Request] = []
        self.refused = 0

    def _started(self, requests: list[Request]) -> None:
        assert requests == self.waiting[: len(requests)], "by priority, then first come, first served"
        del self.waiting[: len(requests)]
        self.working += requests

    @rule(target=held, tokens=st.integers(0, 100), priority=st.sampled_from([0, 0, -5, 7]))
    def enter(self, tokens: int, priority: int) -> Request:
        request = Request(tokens, priority)
        room = len(self.working) < self.limiter.max_concurrency and not self.waiting
        answer = self.limiter.enter(request, tokens, priority)
        if room:
            assert answer is Admission.ADMITTED
            self.working.append(request)
        elif len(self.waiting) < self.limiter.max_queue:
            assert answer is Admission.QUEUED
            self.waiting.append(request)
            self.waiting.sort(key=lambda waiting: -waiting.priority)
            assert self.waiting.index(request) + 1 == self.limiter.position(priority)
        else:
            assert answer is Admission.REFUSED
            self.refused += 1
        return request

    @rule(request=consumes(held))
    def leave(self, request: Request) -> None:
        """Also of one that was refused, which changes nothing."""
        started = self.limiter.leave(request)
        if request in self.working:
            self.working.remove(request)
        elif request in self.waiting:
            self.waiting.remove(request)
            assert started == []
        else:
            assert started == []
        self._started(started)

    @rule(request=held)
    def leave_twice(self, request: Request) -> None:
        if request not in self.working and request not in self.waiting:
            assert self.limiter.leave(request) == []

    @rule(concurrency=st.integers(1, 5), queue=st.integers(0, 4))
    def resize(self, concurrency: int, queue: int) -> None:
        self._started(self.limiter.resize(concurrency, queue))

    @invariant()
    def counts_are_right(self) -> None:
        assert self.limiter.info() == {
            "in_flight": len(self.working),
            "queued": len(self.waiting),
            "in_flight_tokens": sum(request.tokens for request in self.working),
            "queued_tokens": sum(request.tokens for request in self.waiting),
            "max_concurrency": self.limiter.max_concurrency,
            "max_queue": self.limiter.max_queue,
            "refused_total": self.refused,
        }
        assert (self.limiter.in_flight, self.limiter.queued) == (len(self.working), len(self.waiting))

    @invariant()
    def nobody_waits_while_there_is_room(self) -> None:
        assert not self.waiting or len(self.working) >= self.limiter.max_concurrency


TestLimiter = LimiterModel.TestCase
TestLimiter.settings = settings(max_examples=60, stateful_step_count=40)
