"""Where a key is at home: alike for all routers, evenly spread, and stable when endpoints come and go."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.scheduling.homes import SLOTS, Homes
from spillway_sidecar.scheduling.recurrence import GAIN, REMEMBERED, Recurrence
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState


def named(*names: str) -> list[EndpointState]:
    speed = ClusterSpeed()
    return [EndpointState(name, True, speed) for name in names]


def ids(homes: tuple[EndpointState, EndpointState] | None) -> tuple[str, str]:
    assert homes is not None
    return homes[0].id, homes[1].id


@given(st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=20, unique=True), st.integers(1, 1 << 32), st.randoms())
def test_routers_agree_whatever_order_they_know_the_endpoints_in(names: list[str], key: int, rng: object):
    other = list(names)
    rng.shuffle(other)  # type: ignore[attr-defined]
    first, deputy = ids(Homes(named(*names)).of(key))
    assert (first, deputy) == ids(Homes(named(*other)).of(key))
    assert first != deputy


@pytest.mark.parametrize(("name", "count"), [("sim", 4), ("pool", 3), ("pod", 16), ("pod", 64)])
def test_each_endpoint_is_home_to_about_as_many_keys(name: str, count: int):
    homes = Homes(named(*(f"{name}-{n}" for n in range(count))))
    shares = Counter(ids(homes.of(key))[0] for key in range(SLOTS))
    assert len(shares) == count
    assert max(shares.values()) < 1.5 * SLOTS / count, shares
    assert min(shares.values()) > 0.5 * SLOTS / count, shares


def test_when_one_goes_only_its_keys_move_and_its_deputies_take_most():
    names = [f"pod-{n}" for n in range(10)]
    before, after = Homes(named(*names)), Homes(named(*names[1:]))
    moved = taken = gone = 0
    for key in range(SLOTS):
        first, deputy = ids(before.of(key))
        now = ids(after.of(key))[0]
        if first == names[0]:
            gone += 1
            taken += now == deputy
        else:
            moved += now != first
    assert moved == 0
    assert gone > 0
    assert taken > gone / 2


def test_few_endpoints_have_homes_too():
    assert Homes(named()).of(7) is None
    assert ids(Homes(named("a")).of(7)) == ("a", "a")


def test_a_key_that_comes_again_is_shared_and_one_that_does_not_as_likely_as_others_were():
    keys = Recurrence()
    assert keys.meets(1, 4) == 0.0
    assert keys.meets(1, 4) == 1.0
    assert keys.ratio == GAIN
    assert keys.meets(2, 1) == pytest.approx(GAIN)
    assert keys.meets(3, 16) > 10 * GAIN, "any of sixteen routers may have met it"


def test_what_was_met_long_ago_is_forgotten():
    keys = Recurrence()
    keys.meets(1, 1)
    for key in range(2, REMEMBERED + 1):
        keys.meets(key, 1)
    assert keys.meets(1, 1) == 1.0, "of the generation before"
    for key in range(REMEMBERED + 1, 3 * REMEMBERED):
        keys.meets(key, 1)
    assert keys.meets(1, 1) < 1.0
