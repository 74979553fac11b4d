"""Who does worse than its peers: by success rate with room for chance, by silence; and when a first token is late."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.scheduling.health import EndpointHealth
from spillway_sidecar.scheduling.lateness import FADE, MIN_COUNT, Lateness
from spillway_sidecar.scheduling.outliers import EVIDENCE, MIN_REQUESTS, fold, overdue, silent, unsuccessful
from spillway_sidecar.scheduling.speed import ClusterSpeed


def endpoints(*rates: tuple[int, int]) -> list[EndpointHealth]:
    """Endpoints with so many good and bad requests lately."""
    made = []
    for index, (good, bad) in enumerate(rates):
        one = EndpointHealth(f"e{index}")
        one.window_good, one.window_bad = good, bad
        made.append(one)
    fold(made)
    return made


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ([(100, 0), (100, 0), (60, 40), (100, 0)], ["e2"]),
        ([(100, 0), (60, 40)], ["e1"]),
        ([(60, 40), (60, 40), (60, 40)], []),  # all alike: an overload, or what is asked
        ([(100, 0), (100, 0), (95, 5)], []),  # a small gap
        ([(100, 0), (100, 0), (2, 8)], []),  # too few
        ([(60, 40)], []),  # nobody to compare with
        ([(100, 0), (100, 0), (100, 0), (50, 50), (20, 80)], ["e4"]),  # the other one hides behind it until it is out
        ([(90, 10), (60, 40), (75, 25), (80, 20), (50, 50)], []),  # they differ anyway
    ],
)
def test_success_rate(rates: list[tuple[int, int]], found: list[str]):
    assert [one.id for one in unsuccessful(endpoints(*rates))] == found


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)), max_size=20))
def test_an_outlier_has_the_volume_and_is_below_the_mean(rates: list[tuple[int, int]]):
    made = endpoints(*rates)
    judged = [one for one in made if one.recent_good + one.recent_bad >= MIN_REQUESTS]
    for one in unsuccessful(made):
        assert one in judged
        others = [o.recent_good / (o.recent_good + o.recent_bad) for o in judged if o is not one]
        assert one.recent_good / (one.recent_good + one.recent_bad) < sum(others) / len(others)


def test_by_chance_hardly_anything_is_an_outlier():
    rng = random.Random(5)
    wrong = 0
    for _ in range(2000):
        made = endpoints(*[(good := sum(rng.random() < 0.9 for _ in range(30)), 30 - good) for _ in range(6)])
        wrong += len(unsuccessful(made))
    assert wrong / 12_000 < 0.005


def test_what_was_bad_is_forgotten_in_time():
    made = endpoints((100, 0), (0, 100))
    for _ in range(60):
        fold(made)
    assert (made[1].recent_bad, made[0].recent_good) == (0.0, 0.0)


def test_one_that_is_out_is_neither_judged_nor_compared_with():
    made = endpoints((100, 0), (0, 100), (60, 40))
    made[1].failed(0.0, hard=True)
    assert [one.id for one in unsuccessful(made)] == ["e2"]


def test_silence_is_told_from_slowness_and_from_a_standstill_of_all():
    quiet, well = EndpointHealth("quiet"), EndpointHealth("well")
    quiet.waits_overdue = EVIDENCE
    well.replied_at = 100.0
    assert silent(quiet, [quiet, well], 100.1)
    quiet.replied_at = 99.9
    assert not silent(quiet, [quiet, well], 100.1), "it does say something"
    quiet.replied_at = 90.0
    assert not silent(quiet, [quiet, well], 101.0), "nobody says anything"
    quiet.waits_overdue = EVIDENCE - 1
    assert not silent(quiet, [quiet, well], 100.1)


def test_the_longer_overdue_the_more_it_says():
    assert [overdue(waited, 0.4) for waited in (0.1, 0.79, 0.8, 1.59, 1.6, 60.0)] == [0, 0, 1, 1, 2, 2]
    assert overdue(0.49, 0.001) == 0, "an engine that is ordinarily quick may take its time now and then"


def test_late_is_what_one_in_a_hundred_is():
    rng = random.Random(3)
    late = Lateness()
    times = [rng.lognormvariate(0.0, 0.5) for _ in range(5000)]
    for time in times:
        late.observe(True, time)
    late.fold()
    exact = sorted(times)[int(0.99 * len(times))]
    assert exact <= late.stream <= exact * 1.25
    assert late.unary == 0.0


def test_nothing_is_late_while_little_is_known_or_when_it_was_long_ago():
    late = Lateness()
    for _ in range(int(MIN_COUNT) - 1):
        late.observe(False, 1.0)
    late.fold()
    assert late.unary == 0.0
    for _ in range(100):
        late.observe(False, 1.0)
    late.fold()
    assert late.unary > 1.0
    for _ in range(int(10 / (1 - FADE))):
        late.fold()
    assert late.unary == 0.0


@given(st.lists(st.floats(0.0, 1e6), min_size=40, max_size=300))
def test_the_bound_is_one_of_the_buckets(times: list[float]):
    late = Lateness()
    for time in times:
        late.observe(True, time)
    late.fold()
    assert 0.1 <= late.stream <= 110.0
    assert late.stream >= min(110.0, sorted(times)[len(times) // 2]) * 0.79


def test_a_longer_prompt_and_a_queue_may_take_longer():
    speed = ClusterSpeed()
    for _ in range(50):
        speed.observe(True, 0.1, 256)
    assert speed.late_seconds(True, 256, 0) == 0.0
    speed.late.fold()
    short = speed.late_seconds(True, 256, 0)
    assert 0.1 <= short <= 0.13
    assert speed.late_seconds(True, 256, 512) == pytest.approx(2 * short)
    assert speed.late_seconds(False, 256, 0) == 0.0
