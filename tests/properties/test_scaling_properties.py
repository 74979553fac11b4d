"""Whatever is measured, and whenever nothing is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.scaling.decider import Decider, Policy, Reason, Replicas
from spillway_operator.scaling.needs import Need

needs = st.one_of(st.none(), st.floats(0, 50))
scripts = st.lists(st.tuples(needs, needs, st.integers(1, 40)), min_size=1, max_size=12)  # flow, backlog, for how many ticks


@given(start=st.integers(0, 30), least=st.integers(0, 3), most=st.integers(3, 30), script=scripts, ready=st.floats(0, 1))
def test_steps_are_bounded_and_nothing_is_taken_away_on_nothing(
    start: int, least: int, most: int, script: list[tuple[float | None, float | None, int]], ready: float
):
    policy = Policy()
    now, there = 0.0, min(max(start, least), most)
    decider = Decider(now, there)
    highest_until = now + policy.down_delay_seconds  # nothing goes down before this
    for flow, backlog, ticks in script:
        for _ in range(ticks):
            now += 2.0
            decision = decider.decide(now, Need(flow=flow, backlog=backlog), Replicas(there, int(there * ready), least, most))
            assert least <= decision.desired <= most
            if flow is None and backlog is None:
                assert (decision.desired, decision.valid, decision.reason) == (there, False, Reason.NO_DATA)
                highest_until = now + policy.down_delay_seconds
            if decision.desired < there:
                assert now >= highest_until
                assert decision.desired >= there - max(1, there // 2)
                assert not decision.panic
            if decision.desired > there:
                highest_until = max(highest_until, now)
            there = decision.desired
