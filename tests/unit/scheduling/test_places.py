"""An engine's places are learned from who had to wait until another ended."""

from __future__ import annotations

import random

import pytest

from spillway_sidecar.scheduling.places import LEAST, MEMORY_SECONDS, Places
from spillway_sidecar.scheduling.speed import BASE_TOKENS

PACE = 1e-4  # seconds a token


def pass_through(places: Places, size: int, arrivals: list[float], held: list[float], tokens: int = 1000 - BASE_TOKENS) -> None:
    """Tells what the sidecar of an engine would see that reads one prompt after the other, and runs `size` requests at once."""
    events: list[tuple[float, int, int]] = []
    free_at = [0.0] * size
    read_at = 0.0
    for index, at in enumerate(arrivals):
        place = min(range(size), key=free_at.__getitem__)
        read_at = max(at, read_at, free_at[place]) + PACE * (BASE_TOKENS + tokens)
        free_at[place] = read_at + held[index]
        events += [(at, 0, index), (read_at, 2, index), (free_at[place], 1, index)]
    numbers: dict[int, int] = {}
    for now, what, index in sorted(events):
        if what == 0:
            numbers[index] = places.enter()
        elif what == 2:
            places.first_token(numbers[index], tokens, arrivals[index], now)
        else:
            places.end(held[index], now)


def traffic(rate: float, seconds: float, mean_held: float, seed: int = 3) -> tuple[list[float], list[float]]:
    rng = random.Random(seed)
    arrivals, at = [], 0.0
    while (at := at + rng.expovariate(rate)) < seconds:
        arrivals.append(at)
    return arrivals, [rng.expovariate(1.0 / mean_held) for _ in arrivals]


@pytest.mark.parametrize("size", [8, 12, 48])
def test_the_places_of_an_engine_that_is_short_of_them_are_found(size: int):
    places = Places()
    held = 4.0 * size / 12
    pass_through(places, size, *traffic(2.8, 120.0, held))
    assert places.limit == size
    assert places.info()["prompt_tokens_per_second"] == pytest.approx(1 / PACE, rel=0.3)


def test_an_engine_with_places_to_spare_is_short_of_none():
    places = Places()
    pass_through(places, 64, *traffic(4.0, 120.0, 4.0))
    assert places.limit == 0
    assert places.wait_tokens is None


def taken(places: Places, count: int, now: float, *, held_up: float = 0.0) -> None:
    """So many requests come, and have their first tokens one after the other; the last one only when one has ended after `held_up` seconds."""
    for left in range(count, 0, -1):
        number = places.enter()
        if left == 1 and held_up:
            places.end(2.0, now + held_up)
            places.first_token(number, 1000 - BASE_TOKENS, now, now + held_up + 0.1)
        else:
            places.first_token(number, 1000 - BASE_TOKENS, now, now + 0.1)
            now += 0.1


def test_one_more_waits_for_its_share_of_the_mean_time_that_a_place_is_held():
    places = Places()
    taken(places, 7, 0.0, held_up=3.0)
    assert places.limit == 6
    assert places.wait_tokens == pytest.approx(2.0 / 6 / PACE, rel=0.05)
    places.enter()
    assert places.wait_tokens == pytest.approx(2 * 2.0 / 6 / PACE, rel=0.05)
    places.end(0.0, 5.0)
    places.end(0.0, 5.0)
    assert places.wait_tokens is None


def test_more_places_than_were_known_are_believed_when_they_are_seen():
    places = Places()
    taken(places, 7, 0.0, held_up=3.0)
    taken(places, 3, 10.0)
    assert places.limit == 9
    taken(places, 1, 10.0 + MEMORY_SECONDS)
    assert places.limit == 0, "and forgotten when nobody has waited for one in a long time"


def test_few_requests_are_not_short_of_places():
    places = Places()
    taken(places, LEAST, 0.0, held_up=3.0)
    assert places.limit == 0
