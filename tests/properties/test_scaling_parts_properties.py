"""Rates, mixes and what is learned, whatever they are given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.scaling.decider import Decider, Policy, Replicas
from spillway_operator.scaling.mix import Option, groups, needs
from spillway_operator.scaling.needs import Need
from spillway_operator.scaling.rates import Rate, Rates, Select
from spillway_operator.scaling.throughput import Throughput

rate = st.builds(Rate, value=st.integers(1, 20), seconds=st.sampled_from([10.0, 30.0, 60.0]), percent=st.just(value=False))
rates = st.builds(Rates, rates=st.lists(rate, max_size=2).map(tuple), select=st.sampled_from(Select))


@given(
    up=rates, down=rates, start=st.integers(0, 40), script=st.lists(st.tuples(st.floats(0, 60), st.integers(1, 30)), max_size=10)
)
def test_no_more_come_or_go_in_a_period_than_is_declared(up: Rates, down: Rates, start: int, script: list[tuple[float, int]]):
    decider = Decider(0.0, start, Policy(down_delay_seconds=10.0, up=up, down=down))
    there, now = start, 0.0
    changes: list[tuple[float, int]] = []
    for flow, ticks in script:
        for _ in range(ticks):
            now += 2.0
            desired = decider.decide(now, Need(flow=flow), Replicas(there, there, 0, 1000)).desired
            if there:  # from zero nobody waits
                changes.append((now, desired - there))
            there = desired
            for rates_, sign in ((up, 1), (down, -1)):
                made = [(at, sign * change) for at, change in changes if sign * change > 0]
                if rates_.select is Select.DISABLED:
                    assert made == []
                elif len(rates_.rates) == 1:
                    (only,) = rates_.rates
                    assert sum(change for at, change in made if at > now - only.seconds) <= only.value


options = st.lists(
    st.builds(
        Option,
        name=st.text("abcdef", min_size=1, max_size=2),
        hourly=st.floats(0.1, 100),
        tokens_per_second=st.floats(1, 10_000),
        ready=st.integers(0, 20),
        asked_for=st.integers(0, 20),
        most=st.integers(1, 20),
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda option: option.name,
)


@given(options=options, demand=st.floats(0, 100_000))
def test_a_mix_holds_the_demand_where_it_can_and_starts_no_dear_one_before_a_cheap_one(options: list[Option], demand: float):
    found = needs(options, demand)
    assert found.keys() == {option.name for option in options}
    could = sum(option.most * option.tokens_per_second for option in options)
    given_ = sum(found[option.name] * option.tokens_per_second for option in options)
    assert given_ >= min(demand, could) - 1e-6 * max(1.0, demand)
    row = sorted(options, key=lambda option: (option.per_million_tokens, option.name))
    for index, option in enumerate(row):
        assert 0.0 <= found[option.name] <= max(option.most, option.asked_for)
        if found[option.name] > option.asked_for:  # it is to grow
            assert all(found[cheaper.name] >= cheaper.most - 1e-6 for cheaper in row[:index])


@given(sharing=st.lists(st.lists(st.integers(0, 9).map(str), min_size=1, max_size=3), max_size=8))
def test_groups_are_apart_and_keep_together_what_is_shared(sharing: list[list[str]]):
    found = groups(sharing)
    assert sum(map(len, found)) == len(set().union(*found)) if found else sharing == []
    for names in sharing:
        assert sum(set(names) <= group for group in found) == 1


@given(
    script=st.lists(st.tuples(st.floats(0, 1e5), st.integers(0, 10), st.floats(0, 1), st.integers(1, 40)), max_size=12),
    start=st.none() | st.floats(1, 1e4),
)
def test_what_is_learned_is_never_more_than_was_ever_seen_and_never_from_one_with_room(
    script: list[tuple[float, int, float, int]], start: float | None
):
    throughput, now, most = Throughput(start), 0.0, start or 0.0
    for served, ready, saturated, ticks in script:
        for _ in range(ticks):
            now += 2.0
            most = max(most, served / ready if ready else 0.0)
            throughput.observe(now, served, ready, saturated)
        assert throughput.learned is None or 0 < throughput.learned <= most * (1 + 1e-9)
    if all(saturated == 0 for _, _, saturated, _ in script) and start is None:
        assert throughput.learned is None
