"""Pressure: three views, the highest counts, unknown stays unknown."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spillway_operator.balancing.pressure import Occupancy, PressureBounds, pressure, smooth


def _occupancy(**fields: Any) -> Occupancy:
    values: dict[str, Any] = {
        "total": 1, "known": 1, "in_flight": 0, "queued": 0, "engine_waiting": 0, "capacity": 100, "kv_cache_ratio": None,
    }  # fmt: skip
    return Occupancy(**{**values, **fields})


def test_nothing_under_way_is_no_pressure():
    assert pressure(_occupancy()) == 0


def test_full_slots_are_over_the_bound():
    assert pressure(_occupancy(in_flight=85)) == pytest.approx(1.0)
    assert pressure(_occupancy(in_flight=100)) == pytest.approx(1 / 0.85)


def test_requests_that_wait_in_the_engine_press_though_slots_are_free():
    # 16 run, 8 wait: two slots for each one that waits are free, and yet everybody waits half a service time.
    value = pressure(_occupancy(in_flight=24, engine_waiting=8, capacity=256))
    assert value is not None
    assert value > 1


def test_one_waiting_request_an_endpoint_is_flicker():
    value = pressure(_occupancy(in_flight=3, engine_waiting=1, capacity=256))
    assert value is not None
    assert value < 0.1


def test_a_full_cache_presses():
    assert pressure(_occupancy(kv_cache_ratio=0.95)) == pytest.approx(1.0)


def test_pressure_is_capped():
    assert pressure(_occupancy(in_flight=100, queued=10_000)) == PressureBounds().cap


@pytest.mark.parametrize(
    "occupancy",
    [
        _occupancy(total=0, known=0),
        _occupancy(total=4, known=0),
        _occupancy(total=4, known=1, in_flight=100),
        _occupancy(capacity=0, in_flight=5),
    ],
    ids=["no endpoints", "nobody reports", "too few report", "no capacity"],
)
def test_too_little_known_is_unknown(occupancy: Occupancy):
    assert pressure(occupancy) is None


def test_half_of_the_endpoints_are_enough_to_know():
    assert pressure(_occupancy(total=4, known=2)) == 0


def test_smoothing_takes_the_first_reading_as_it_is():
    assert smooth(None, 2.0, 0.5, 1.0) == 2.0


def test_smoothing_moves_by_the_share_of_the_time_constant():
    assert smooth(0.0, 1.0, 1.0, 1.0) == pytest.approx(1 - math.exp(-1))
    assert smooth(0.5, 1.0, 0.0, 1.0) == 0.5
    assert smooth(0.5, 1.0, -3.0, 1.0) == 0.5


def test_an_unknown_reading_is_unknown_at_once():
    assert smooth(2.0, None, 0.5, 1.0) is None
