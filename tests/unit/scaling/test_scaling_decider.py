"""How many replicas there should be: up at once, down late, never on nothing."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable

import pytest

from spillway_operator.scaling.decider import Decider, Decision, Policy, Reason, Replicas
from spillway_operator.scaling.needs import Need
from spillway_operator.scaling.rates import Rate, Rates, Select

TICK_SECONDS = 2.0
HOUR_SECONDS = 3600.0


class Plant:
    """A backend whose replicas take a while to start, and the decider that scales it."""

    def __init__(self, replicas: int, *, cold_start_seconds: float = 60.0, least: int = 0, most: int = 1000) -> None:
        self.now = 0.0
        self.replicas = replicas
        self.starting: list[float] = []  # when each is ready
        self.cold_start_seconds = cold_start_seconds
        self.least, self.most = least, most
        self.decider = Decider(0.0, replicas)
        self.turns: list[int] = []  # +1 and -1, as the number rose and fell
        self.last = Decision(replicas, valid=True, reason=Reason.STEADY)
        self.seen: list[int] = []

    def tick(self, need: Need) -> Decision:
        self.now += TICK_SECONDS
        self.starting = [at for at in self.starting if at > self.now]
        state = Replicas(self.replicas, ready=self.replicas - len(self.starting), least=self.least, most=self.most)
        self.last = self.decider.decide(self.now, need, state)
        change = self.last.desired - self.replicas
        if change > 0:
            self.starting += [self.now + self.cold_start_seconds] * change
        elif change < 0:
            self.starting = self.starting[: max(0, len(self.starting) + change)]
        if change:
            self.turns.append(1 if change > 0 else -1)
        self.replicas = self.last.desired
        self.seen.append(self.replicas)
        return self.last

    def run(self, seconds: float, flow: Callable[[float], float | None]) -> Plant:
        for _ in range(int(seconds / TICK_SECONDS)):
            value = flow(self.now)
            self.tick(Need(flow=value))
        return self

    @property
    def reversals(self) -> int:
        return sum(one != other for one, other in itertools.pairwise(self.turns))


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("level", [1.0, 4.0, 9.5, 40.0])
def test_steady_load_with_noise_turns_nothing_round(seed: int, level: float):
    rng = random.Random(seed)
    plant = Plant(math.ceil(level)).run(HOUR_SECONDS, lambda _: max(0.0, rng.gauss(level, 0.25 * level)))
    assert plant.reversals == 0
    assert plant.replicas <= 1.6 * level + 1


@pytest.mark.parametrize("level", [2.0, 3.999, 4.0, 4.001, 7.0])
def test_the_edge_of_a_whole_number_is_no_edge(level: float):
    rng = random.Random(1)
    plant = Plant(math.ceil(level)).run(HOUR_SECONDS, lambda _: level + rng.uniform(-0.05, 0.05))
    assert plant.turns == []


@pytest.mark.parametrize("seed", range(10))
def test_a_tenfold_step_is_followed_once_and_left_once(seed: int):
    rng = random.Random(seed)

    def flow(now: float) -> float:
        level = 20.0 if 600 <= now < 2400 else 2.0
        return max(0.0, rng.gauss(level, 0.1 * level))

    plant = Plant(2, cold_start_seconds=120).run(HOUR_SECONDS, flow)
    assert plant.reversals == 1
    up = next(index for index, seen in enumerate(plant.seen) if seen >= 18)
    assert up * TICK_SECONDS - 600 <= 20
    assert max(plant.seen) <= 22 * 1.1
    assert plant.seen[-1] <= 3


@pytest.mark.parametrize("period_seconds", [900.0, 1800.0, 3600.0])
def test_a_wave_turns_twice_a_period_at_most(period_seconds: float):
    rng = random.Random(3)

    def flow(now: float) -> float:
        return max(0.0, (10 + 6 * math.sin(2 * math.pi * now / period_seconds)) * rng.gauss(1, 0.1))

    periods = 4
    plant = Plant(10).run(periods * period_seconds, flow)
    assert plant.reversals <= 2 * periods


def test_nothing_measured_changes_nothing_and_lowers_nothing_afterwards_for_a_while():
    plant = Plant(10).run(1200, lambda _: 10.0)
    for _ in range(200):
        decision = plant.tick(Need())
        assert (decision.desired, decision.valid, decision.reason) == (10, False, Reason.NO_DATA)
    plant.run(Policy().down_delay_seconds - 4, lambda _: 1.0)
    assert plant.replicas == 10
    plant.run(600, lambda _: 1.0)
    assert plant.replicas <= 2


def test_a_lull_shorter_than_the_delay_takes_nothing_away():
    plant = Plant(10).run(1200, lambda _: 10.0)
    assert plant.run(280, lambda _: 0.5).replicas == 10
    assert plant.last.reason is Reason.DELAYED


def test_a_step_down_takes_half_at_most_and_the_next_one_waits():
    plant = Plant(16).run(1200, lambda _: 16.0).run(900, lambda _: 0.0)
    steps = [index for index in range(1, len(plant.seen)) if plant.seen[index] != plant.seen[index - 1]]
    assert all(plant.seen[index] >= plant.seen[index - 1] // 2 for index in steps)
    assert all(later - one >= Policy().down_spacing_seconds / TICK_SECONDS for one, later in itertools.pairwise(steps))
    assert plant.replicas == 0


def test_a_backlog_asks_for_nothing_beyond_what_is_starting():
    """Ten replicas were asked for a backlog; while they start it grows, and is theirs."""
    plant = Plant(1, cold_start_seconds=120)
    for number in range(55):
        plant.tick(Need(flow=2.0, backlog=min(10.0 + number, 60.0)))
    assert max(plant.seen) <= 12


def test_from_zero_at_once_and_back_to_zero():
    plant = Plant(0)
    assert plant.tick(Need(flow=0.0)).desired == 0
    assert plant.tick(Need(flow=0.1)).reason is Reason.FROM_ZERO
    assert plant.replicas == 1
    plant.run(600, lambda _: 0.0)
    assert plant.replicas == 0


def test_bounds_are_kept_whatever_is_needed():
    plant = Plant(2, least=2, most=5).run(120, lambda _: 50.0)
    assert plant.replicas == 5
    assert plant.last.reason is Reason.AT_MOST
    assert plant.run(3600, lambda _: 0.0).replicas == 2


def test_an_operator_that_starts_does_not_lower_what_it_knows_nothing_of():
    decider = Decider(0.0, 8)
    for tick in range(1, 29):
        decision = decider.decide(tick * TICK_SECONDS, Need(flow=1.0), Replicas(8, ready=8, least=0, most=10))
        assert (decision.desired, decision.panic) == (8, True)
    assert decider.info(56.0)["recommended"] == 8


def scale_up(plant: Plant, policy: Policy, need: float, ticks: int) -> list[int]:
    """What there is after each tick of a need, once a minute has passed."""
    plant.decider = Decider(plant.now, plant.replicas, policy)
    plant.run(120, lambda _: float(plant.replicas))
    plant.seen.clear()
    plant.run(ticks * TICK_SECONDS, lambda _: need)
    return plant.seen


def test_a_declared_rate_bounds_the_way_up():
    policy = Policy(up=Rates((Rate(2, 20.0), Rate(50, 20.0, percent=True))))
    seen = scale_up(Plant(10), policy, 100.0, 30)
    risen = [index for index in range(1, len(seen)) if seen[index] != seen[index - 1]]
    assert [seen[index] for index in risen] == [15, 23, 35]  # the one that allows more: half of what there was
    assert [later - one for one, later in itertools.pairwise(risen)] == [11, 11]  # 20 s, and the tick that sees it
    fewest = scale_up(Plant(10), Policy(up=Rates(policy.up.rates, Select.MIN)), 100.0, 14)
    assert max(fewest) == 14
    assert set(scale_up(Plant(10), Policy(up=Rates(select=Select.DISABLED)), 100.0, 12)) == {10}


def test_a_declared_rate_stands_in_place_of_the_deciders_own_way_down():
    quick = Policy(down_delay_seconds=20.0, down=Rates((Rate(100, 15.0, percent=True),)))
    assert scale_up(Plant(10), quick, 0.0, 60)[-1] == 0
    slow = Policy(down_delay_seconds=20.0, down=Rates((Rate(1, 30.0),)))
    seen = scale_up(Plant(10), slow, 0.0, 120)
    assert {one - later for one, later in itertools.pairwise(seen)} == {0, 1}
    assert 10 - seen[-1] <= 120 * TICK_SECONDS / 30
    assert set(scale_up(Plant(10), Policy(down_delay_seconds=20.0, down=Rates(select=Select.DISABLED)), 0.0, 120)) == {10}


def test_a_declared_window_delays_the_way_up():
    seen = scale_up(Plant(4), Policy(up_delay_seconds=60.0), 40.0, 60)
    assert (next(index for index, count in enumerate(seen) if count > 4) + 1) * TICK_SECONDS >= 60


def test_from_zero_waits_for_no_rate():
    decider = Decider(0.0, 0, Policy(up=Rates((Rate(1, 1800.0),))))
    assert decider.decide(2.0, Need(backlog=1.0), Replicas(0, 0, 0, 4)).reason is Reason.FROM_ZERO


def test_a_rise_is_followed_by_what_came_since_and_not_by_its_highest_moment():
    """Requests of unlike sizes: a quarter of noise on each tick. By the highest moments it was 12.8 of 10 in the mean."""
    highest = []
    for seed in range(10):
        rng = random.Random(seed)
        plant = Plant(1, cold_start_seconds=60).run(300, lambda _: 1.0)
        plant.run(600, lambda _, rng=rng: 10.0 * rng.lognormvariate(-0.03, 0.25))
        highest.append(max(plant.seen))
    assert 10 <= sum(highest) / len(highest) <= 11.5
    assert max(highest) <= 13
