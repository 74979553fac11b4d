"""What holds for the weights whatever the load."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.balancing.pressure import Occupancy, PressureBounds, pressure, smooth
from spillway_operator.balancing.weights import Course, Share, WeightPolicy, effective, factors, next_courses, worth_publishing

POLICY = WeightPolicy()
NAMES = ("a", "b", "c", "d")

levels = st.one_of(st.none(), st.floats(0, 4), st.just(math.nan), st.just(math.inf))
pressures = st.dictionaries(st.sampled_from(NAMES), levels)
courses = st.dictionaries(
    st.sampled_from(NAMES), st.builds(Course, st.floats(0, 2), st.one_of(st.none(), st.floats(0, 4)), st.floats(0, 60))
)
declared = st.dictionaries(
    st.sampled_from(NAMES), st.builds(Share, weight=st.integers(0, 1_000_000), priority=st.integers(0, 2)), min_size=1
)
spans = st.floats(-1, 10)


@given(declared, courses, pressures, spans)
def test_factors_are_finite_between_floor_and_one_for_every_declared_backend(
    shares: dict[str, Share], before: dict[str, Course], load: dict[str, float | None], dt: float
):
    after = factors(next_courses(shares, before, load, dt))
    assert after.keys() == shares.keys()
    assert all(POLICY.floor <= factor <= 1.0 for factor in after.values())
    weights = effective(shares, after)
    for name, weight in weights.items():
        assert math.isfinite(weight)
        assert 0 <= weight <= shares[name].weight
        assert weight >= POLICY.floor * shares[name].weight * 0.999


@given(declared, courses, pressures, st.floats(0, 2))
def test_change_is_bounded_in_time(shares: dict[str, Share], before: dict[str, Course], load: dict[str, float | None], dt: float):
    start = {name: min(1.0, max(POLICY.floor, before.get(name, Course()).factor)) for name in shares}
    after = factors(next_courses(shares, before, load, dt))
    for name, factor in after.items():
        assert factor >= start[name] * (1 - POLICY.fall_per_second) ** dt - 1e-9 or factor == POLICY.floor
        assert factor <= start[name] + POLICY.rise_per_second * dt + 1e-9


@given(declared, courses, pressures, st.floats(0, 2), st.sampled_from(NAMES), st.floats(0, 4), st.floats(0, 4))
def test_more_pressure_never_gives_more_weight(
    shares: dict[str, Share],
    before: dict[str, Course],
    load: dict[str, float | None],
    dt: float,
    name: str,
    one: float,
    other: float,
):
    less, more = sorted((one, other))
    relaxed = factors(next_courses(shares, before, {**load, name: less}, dt))
    pressed = factors(next_courses(shares, before, {**load, name: more}, dt))
    assert pressed.get(name, 0.0) <= relaxed.get(name, 0.0) + 1e-12


@given(declared, courses, pressures, spans)
def test_weight_never_moves_towards_a_pressed_backend(
    shares: dict[str, Share], before: dict[str, Course], load: dict[str, float | None], dt: float
):
    start = {name: min(1.0, max(POLICY.floor, before.get(name, Course()).factor)) for name in shares}
    after = factors(next_courses(shares, before, load, dt))
    for name in shares:
        level = load.get(name)
        if level is not None and level >= POLICY.low:
            assert after[name] <= start[name]


@given(declared, courses, st.floats(0, 2))
def test_unknown_load_holds(shares: dict[str, Share], before: dict[str, Course], dt: float):
    start = {name: min(1.0, max(POLICY.floor, before.get(name, Course()).factor)) for name in shares}
    assert factors(next_courses(shares, before, dict.fromkeys(shares), dt)) == start


@given(declared, courses, st.dictionaries(st.sampled_from(NAMES), st.floats(0, 0.69)))
def test_without_pressure_it_comes_back_to_exactly_the_declared_weights(
    shares: dict[str, Share], before: dict[str, Course], load: dict[str, float | None]
):
    calm = {name: load.get(name, 0.0) for name in shares}
    state = before
    for _ in range(80):
        state = next_courses(shares, state, calm, 0.5)
    assert effective(shares, factors(state)) == {name: float(share.weight) for name, share in shares.items()}


@given(declared, st.dictionaries(st.sampled_from(NAMES), st.floats(1.001, 4)))
def test_nothing_moves_where_everyone_is_pressed(shares: dict[str, Share], load: dict[str, float | None]):
    full = {name: load.get(name, 2.0) for name in shares}
    assert factors(next_courses(shares, {}, full, 1.0)) == dict.fromkeys(shares, 1.0)


@given(st.floats(1.0, 4), st.integers(1, 100), st.integers(1, 100))
def test_the_share_of_a_pressed_backend_never_grows_against_one_with_room(level: float, mine: int, others: int):
    shares = {"a": Share(mine), "b": Share(others)}
    state: dict[str, Course] = {}
    last = mine / (mine + others)
    for _ in range(20):
        state = next_courses(shares, state, {"a": level, "b": 0.1}, 0.5)
        weights = effective(shares, factors(state))
        share = weights["a"] / sum(weights.values())
        assert share <= last + 1e-9
        last = share


@given(st.lists(pressures, max_size=40))
def test_published_factors_are_never_far_from_the_computed_ones(course: list[dict[str, float | None]]):
    shares = {name: Share(1) for name in NAMES}
    state: dict[str, Course] = {}
    published: dict[str, float] = {}
    for load in course:
        state = next_courses(shares, state, load, 0.5)
        if worth_publishing(published, factors(state)):
            published = factors(state)
        for name, factor in factors(state).items():
            assert abs(factor - published.get(name, 1.0)) <= POLICY.step_ratio * published.get(name, 1.0) + 1e-9


occupancies = st.builds(
    Occupancy,
    total=st.integers(0, 50),
    known=st.integers(0, 50),
    in_flight=st.integers(0, 10_000),
    queued=st.integers(0, 10_000),
    engine_waiting=st.integers(0, 10_000),
    capacity=st.integers(0, 10_000),
    kv_cache_ratio=st.one_of(st.none(), st.floats(0, 1)),
)


@given(occupancies)
def test_pressure_is_unknown_or_within_its_range(occupancy: Occupancy):
    level = pressure(occupancy)
    assert level is None or 0 <= level <= PressureBounds().cap


@given(occupancies, st.integers(1, 100))
def test_a_longer_queue_never_lowers_the_pressure(occupancy: Occupancy, more: int):
    from dataclasses import replace

    before, after = pressure(occupancy), pressure(replace(occupancy, queued=occupancy.queued + more))
    assert (before is None) == (after is None)
    if before is not None and after is not None:
        assert after >= before


@given(st.floats(0, 4), st.floats(0, 4), st.floats(0, 100))
def test_smoothing_stays_between_old_and_new(old: float, new: float, dt: float):
    value = smooth(old, new, dt, 1.0)
    assert value is not None
    assert min(old, new) - 1e-9 <= value <= max(old, new) + 1e-9


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
def test_the_period_of_the_loop_does_not_matter(steps: int):
    shares = {"a": Share(1), "b": Share(1)}
    state: dict[str, Course] = {}
    for _ in range(steps):
        state = next_courses(shares, state, {"a": 2.0, "b": 0.0}, 2.0 / steps)
    assert state["a"].factor == pytest.approx(0.64)
