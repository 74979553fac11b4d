"""The health of a cluster's endpoints under any course of events: never more out by judgement than may be, and always a way back."""

from __future__ import annotations

import math

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from spillway_sidecar.scheduling.health import (
    DOWN_MAX_SECONDS,
    LIMITED_MAX_SECONDS,
    PENALTY_MAX,
    SLOW_START_FACTOR,
    Ejection,
    EndpointHealth,
    Peers,
)

COUNT = 5
which = st.integers(0, COUNT - 1)


class BreakerModel(RuleBasedStateMachine):
    """Requests succeed and fail, endpoints are found silent or worse than others, leave, ask to be left alone; time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.all = [EndpointHealth(f"a-{number}") for number in range(COUNT)]
        peers = Peers(self.all)
        for one in self.all:
            one.peers = peers

    @rule(index=which, age=st.floats(0.0, 30.0))
    def succeed(self, index: int, age: float) -> None:
        one = self.all[index]
        sent_at = self.now - age
        before = one.ejected, one.failures
        stale = one.down_until > 0.0 and sent_at < one.down_since
        one.succeeded(self.now, sent_at)
        assert (one.ejected, one.failures) == (before if stale else (None, 0)), (
            "what was sent before tells nothing of the time after"
        )

    @rule(index=which, hard=st.booleans(), age=st.floats(0.0, 30.0))
    def fail(self, index: int, hard: bool, age: float) -> None:
        one = self.all[index]
        before = self.out()
        sent_at = self.now - age
        stale = one.down_until > 0.0 and sent_at < one.down_since
        one.failed(self.now, hard=hard, sent_at=sent_at)
        if hard and not stale:
            assert one.ejected is not None
        self.bounded(before, one)

    @rule(index=which, reason=st.sampled_from([Ejection.SILENT, Ejection.OUTLIER, Ejection.FAILING]))
    def judge(self, index: int, reason: Ejection) -> None:
        one = self.all[index]
        before = self.out()
        was_out = one.ejected is not None
        taken = one.eject(reason, self.now)
        assert taken is (one.ejected is not None)
        assert taken or not was_out
        if taken:
            assert 0 < one.down_until - self.now <= DOWN_MAX_SECONDS
        self.bounded(before, one)

    def out(self) -> set[str]:
        return {one.id for one in self.all if one.ejected is not None}

    def bounded(self, before: set[str], one: EndpointHealth) -> None:
        """A judgement put one more out only where fewer than half of those that can be reached were, or a less bad one came back."""
        if one.ejected in {None, Ejection.UNREACHABLE} or one.id in before:
            return
        reachable = [peer for peer in self.all if not (peer.draining or peer.blocked or peer.ejected is Ejection.UNREACHABLE)]
        out = [peer for peer in reachable if peer.ejected is not None]
        came_back = before - self.out()
        assert came_back or len(out) <= max(1, (len(reachable) + 1) // 2), (len(out), len(reachable))
        assert len(came_back) <= 1

    @rule(index=which, away=st.booleans())
    def say(self, index: int, away: bool) -> None:
        self.all[index].says(self.now, away=away)

    @rule(index=which, seconds=st.sampled_from([-1.0, 0.0, 0.0, 0.3, 20.0, 1e12]))
    def limit(self, index: int, seconds: float) -> None:
        one = self.all[index]
        one.limit_rate(seconds, self.now)
        assert self.now <= one.limited_until <= self.now + LIMITED_MAX_SECONDS or one.limited(self.now)

    @rule(index=which, draining=st.booleans(), blocked=st.booleans())
    def mark(self, index: int, draining: bool, blocked: bool) -> None:
        self.all[index].mark(draining=draining, blocked=blocked)

    @rule(seconds=st.floats(0.0, 60.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for one in self.all:
            one.refresh(self.now)
            one.limited(self.now)

    @invariant()
    def what_is_said_of_one_agrees(self) -> None:
        for one in self.all:
            assert (one.ejected is not None or one.doubted) is (one.down_until > 0.0)
            until = (one.down_until, one.away_until, one.limited_until)
            assert one.shut is (one.draining or one.blocked or any(moment > 0.0 for moment in until))
            assert 1.0 <= one.penalty <= PENALTY_MAX
            assert 1.0 <= one.factor <= PENALTY_MAX * (1.0 + SLOW_START_FACTOR)
            assert math.isfinite(one.factor)
            assert one.down_until <= self.now + DOWN_MAX_SECONDS

    def teardown(self) -> None:
        """All is well again: a request each, and a while, and nothing is held against anybody."""
        for one in self.all:
            one.mark(draining=False, blocked=False)
            one.says(self.now, away=False)
            self.now += LIMITED_MAX_SECONDS
            one.limited(self.now)
            one.succeeded(self.now, self.now)
            assert not one.shut
        self.now += 600.0
        for one in self.all:
            one.refresh(self.now)
            assert one.factor == 1.0


TestBreaker = BreakerModel.TestCase
TestBreaker.settings = settings(max_examples=60, stateful_step_count=30)
