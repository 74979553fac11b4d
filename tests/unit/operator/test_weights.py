"""Effective weights: exactly the declared ones at rest, moved by pressure, held where nobody knows."""

from __future__ import annotations

import pytest

from spillway_operator.balancing.weights import Share, WeightPolicy, effective, next_factors, worth_publishing

TWO = {"a": Share(90), "b": Share(10)}
POLICY = WeightPolicy()


def _after(
    seconds: float,
    pressures: dict[str, float | None],
    start: dict[str, float] | None = None,
    declared: dict[str, Share] | None = None,
) -> dict[str, float]:
    factors = start or {}
    for _ in range(round(seconds / 0.5)):
        factors = next_factors(declared or TWO, factors, pressures, 0.5)
    return factors


def test_at_rest_effective_weights_are_the_declared_ones_exactly():
    factors = _after(60, {"a": 0.3, "b": 0.6})
    assert effective(TWO, factors) == {"a": 90.0, "b": 10.0}


def test_a_pressed_backend_loses_share_while_another_has_room():
    factors = _after(3, {"a": 3.0, "b": 0.2})
    assert factors["a"] == pytest.approx(0.125)
    assert factors["b"] == 1.0


def test_it_never_falls_faster_than_the_bound_however_hard_it_is_pressed():
    assert next_factors(TWO, {}, {"a": 1e9, "b": 0.0}, 1.0)["a"] == pytest.approx(0.5)


def test_a_little_pressure_moves_a_little():
    assert next_factors(TWO, {}, {"a": 1.1, "b": 0.0}, 1.0)["a"] == pytest.approx(0.95)


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
    assert _after(10, {"a": 0.0, "b": 0.0}, {"a": 0.1})["a"] == pytest.approx(0.6)
    assert _after(30, {"a": 0.0, "b": 0.0}, {"a": 0.1})["a"] == 1.0


def test_between_the_marks_it_holds():
    assert _after(30, {"a": 0.85, "b": 0.0}, {"a": 0.4})["a"] == 0.4


def test_a_stalled_loop_does_not_catch_up_in_one_leap():
    assert next_factors(TWO, {}, {"a": 4.0, "b": 0.0}, 3600)["a"] == pytest.approx(0.25)
    assert next_factors(TWO, {}, {"a": 4.0, "b": 0.0}, -5)["a"] == 1.0


def test_backends_that_left_the_rule_leave_the_factors():
    assert next_factors({"b": Share(1)}, {"a": 0.2, "b": 0.5}, {"b": 0.9}, 0.5) == {"b": 0.5}


def test_small_moves_are_not_published_and_resting_places_are():
    assert not worth_publishing({"a": 0.50}, {"a": 0.505})
    assert worth_publishing({"a": 0.50}, {"a": 0.511})
    assert worth_publishing({"a": 0.995}, {"a": 1.0})
    assert worth_publishing({"a": 0.0501}, {"a": POLICY.floor})
    assert not worth_publishing({}, {"a": 1.0, "b": 1.0})
    assert not worth_publishing({"a": 1.0}, {"a": 1.0})


def test_a_backend_that_left_with_a_factor_is_published():
    assert worth_publishing({"a": 0.5, "b": 1.0}, {"b": 1.0})
    assert not worth_publishing({"a": 1.0, "b": 1.0}, {"b": 1.0})
