"""Effective weights: exactly the declared ones at rest, moved by pressure, held where nobody knows."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from spillway_operator.balancing.pressure import Occupancy, pressure, smooth
from spillway_operator.balancing.weights import Course, Share, WeightPolicy, effective, factors, next_courses, worth_publishing

TWO = {"a": Share(90), "b": Share(10)}
POLICY = WeightPolicy()


def _after(
    seconds: float,
    pressures: dict[str, float | None],
    start: dict[str, float] | None = None,
    declared: dict[str, Share] | None = None,
) -> dict[str, float]:
    courses = {name: Course(factor) for name, factor in (start or {}).items()}
    for _ in range(round(seconds / 0.5)):
        courses = next_courses(declared or TWO, courses, pressures, 0.5)
    return factors(courses)


def _once(pressures: dict[str, float | None], dt: float, before: dict[str, Course] | None = None) -> dict[str, float]:
    return factors(next_courses(TWO, before or {}, pressures, dt))


def test_at_rest_effective_weights_are_the_declared_ones_exactly():
    assert effective(TWO, _after(60, {"a": 0.3, "b": 0.6})) == {"a": 90.0, "b": 10.0}


def test_a_pressed_backend_loses_share_while_another_has_room():
    after = _after(3, {"a": 3.0, "b": 0.2})
    assert after["a"] == pytest.approx(0.8**3)
    assert after["b"] == 1.0


def test_it_never_falls_faster_than_the_bound_however_hard_it_is_pressed():
    assert _once({"a": 1e9, "b": 0.0}, 1.0)["a"] == pytest.approx(0.8)


def test_a_little_pressure_moves_a_little():
    assert _once({"a": 1.1, "b": 0.0}, 1.0)["a"] == pytest.approx(0.98)


def test_the_floor_keeps_a_trickle():
    assert _after(120, {"a": 4.0, "b": 0.0})["a"] == POLICY.floor


def test_when_everyone_is_pressed_all_hold():
    start = {"a": 0.6, "b": 0.9}
    assert _after(10, {"a": 2.0, "b": 3.0}, start) == start


@pytest.mark.parametrize("room", [0.7, 0.9, None], ids=["at the low mark", "between", "unknown"])
def test_only_known_headroom_is_leant_on(room: float | None):
    assert _after(5, {"a": 3.0, "b": room})["a"] == 1.0


def test_headroom_of_another_priority_or_without_weight_does_not_count():
    spare = {"a": Share(1), "b": Share(1, priority=1), "c": Share(0)}
    assert _after(5, {"a": 3.0, "b": 0.0, "c": 0.0}, declared=spare)["a"] == 1.0


def test_unknown_pressure_holds():
    assert _after(30, {"a": None, "b": 0.0}, {"a": 0.4}) == {"a": 0.4, "b": 1.0}
    assert _after(30, {}, {"a": 0.4})["a"] == 0.4
    assert _after(30, {"a": float("nan"), "b": 0.0}, {"a": 0.4})["a"] == 0.4


def test_recovery_is_slow_and_ends_at_the_declared_weight():
    assert _after(10, {"a": 0.0, "b": 0.0}, {"a": 0.1})["a"] == pytest.approx(0.145, abs=0.01)
    assert _after(20, {"a": 0.0, "b": 0.0}, {"a": 0.1})["a"] == pytest.approx(0.44, abs=0.02)
    assert _after(32, {"a": 0.0, "b": 0.0}, {"a": 0.1})["a"] == 1.0


def test_a_queue_that_drains_takes_nothing_more_away():
    before = {"a": Course(0.6, level=3.0)}
    assert _once({"a": 2.5, "b": 0.0}, 1.0, before)["a"] == 0.6
    assert _once({"a": 3.0, "b": 0.0}, 1.0, before)["a"] == pytest.approx(0.48)


def test_what_was_too_much_a_moment_ago_is_approached_with_care():
    calm = {"a": Course(0.5, level=0.1, calm_seconds=POLICY.calm_seconds)}
    pressed = next_courses(TWO, calm, {"a": 1.01, "b": 0.0}, 0.5)
    assert pressed["a"].calm_seconds == 0.0
    after = next_courses(TWO, pressed, {"a": 0.1, "b": 0.0}, 0.5)
    assert after["a"].factor - pressed["a"].factor < 0.001
    assert _once({"a": 0.1, "b": 0.0}, 0.5, calm)["a"] == pytest.approx(0.525)


def test_between_the_marks_it_holds():
    assert _after(30, {"a": 0.85, "b": 0.0}, {"a": 0.4})["a"] == 0.4


def test_a_stalled_loop_does_not_catch_up_in_one_leap():
    assert _once({"a": 4.0, "b": 0.0}, 3600)["a"] == pytest.approx(0.64)
    assert _once({"a": 4.0, "b": 0.0}, -5)["a"] == 1.0


def test_backends_that_left_the_rule_leave_the_factors():
    assert factors(next_courses({"b": Share(1)}, {"a": Course(0.2), "b": Course(0.5)}, {"b": 0.9}, 0.5)) == {"b": 0.5}


def test_small_moves_are_not_published_and_resting_places_are():
    assert not worth_publishing({"a": 0.50}, {"a": 0.505})
    assert worth_publishing({"a": 0.50}, {"a": 0.521})
    assert worth_publishing({"a": 0.995}, {"a": 1.0})
    assert worth_publishing({"a": 0.0501}, {"a": POLICY.floor})
    assert not worth_publishing({}, {"a": 1.0, "b": 1.0})
    assert not worth_publishing({"a": 1.0}, {"a": 1.0})


def test_a_backend_that_left_with_a_factor_is_published():
    assert worth_publishing({"a": 0.5, "b": 1.0}, {"b": 1.0})
    assert not worth_publishing({"a": 1.0, "b": 1.0}, {"b": 1.0})


class Engines:
    """Two backends of one priority whose engines run 16 at a time: what a lasting overload of the declared division does to them."""

    def __init__(self, seed: int, offered: float) -> None:
        self.rng = random.Random(seed)
        self.offered = offered
        self.held = {"a": 0, "b": 0}
        self.courses: dict[str, Course] = {}
        self.published: dict[str, float] = {}
        self.levels: dict[str, float | None] = {}
        self.changes = 0

    def step(self) -> float:
        """Half a second, in which each request takes two; the factor of `a` after it."""
        weights = effective(TWO, self.published)
        for name, held in self.held.items():
            share = weights[name] / sum(weights.values())
            came = sum(self.rng.random() < self.offered * share * 0.5 / 40 for _ in range(40))
            ended = sum(self.rng.random() < 0.25 for _ in range(min(held, 16)))
            self.held[name] = held + came - ended
            occupancy = Occupancy(1, 1, self.held[name], 0, max(0, self.held[name] - 16), 16)
            self.levels[name] = smooth(self.levels.get(name), pressure(occupancy), 0.5, 1.0)
        self.courses = next_courses(TWO, self.courses, self.levels, 0.5)
        current = factors(self.courses)
        if worth_publishing(self.published, current):
            self.published = current
            self.changes += 1
        return current["a"]


@pytest.mark.parametrize("seed", range(5))
def test_under_an_overload_that_lasts_weights_come_to_rest(seed: int):
    """At 90 to 10, ten requests a second are nine for an engine that serves eight, while the other has room for seven more."""
    engines = Engines(seed, 10.0)
    course = [engines.step() for _ in range(480)]
    late = course[240:]
    assert max(late) < 0.8
    assert sum(abs(after - before) for before, after in pairwise(late)) < 0.8, "up and down together, in two minutes"
    assert engines.changes < 120
