"""Profiles: what is compiled from what is declared, and what it then picks."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from tests.fakes.picking import Chance, request

from spillway_sidecar.scheduling.filters.eligible import Candidate, Eliminated
from spillway_sidecar.scheduling.pickers.drawn import drawn
from spillway_sidecar.scheduling.pickers.soonest import SAMPLE, SCAN_ALL
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.profile import DEFAULT, KEYS_FROM_BYTES, NEVER, compile_profile
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.loads import Load
from spillway_wire.names import SchedulingProfile, Scorer
from spillway_wire.snapshot import Scheduling, ScorerWeight

RNG = random.Random(3)
VIEW = Chance(1, 100.0, RNG.random)


@dataclass
class Backend:
    """A backend of a rule."""

    weight: float
    cluster: Pool[EndpointState]


def pool(count: int) -> Pool[EndpointState]:
    speed = ClusterSpeed()
    made: Pool[EndpointState] = Pool("p", [EndpointState(f"e{n}", True, speed) for n in range(count)], speed)
    for endpoint in made.targets:
        endpoint.limit(64, 16)
    return made


def declared(profile: SchedulingProfile = SchedulingProfile.DEFAULT, **weights: int) -> Scheduling:
    return Scheduling(profile, tuple(ScorerWeight(Scorer(name), weight) for name, weight in weights.items()))


def test_nothing_declared_is_the_default_and_so_is_the_default_declared():
    assert compile_profile(None) is DEFAULT
    assert compile_profile(Scheduling()) is DEFAULT
    assert DEFAULT.by_wait
    assert DEFAULT.keys_from == KEYS_FROM_BYTES


def test_keys_are_read_only_where_they_are_gone_by():
    assert compile_profile(declared(Load=1)).keys_from == NEVER
    assert compile_profile(declared(PrefixAffinity=1)).keys_from == KEYS_FROM_BYTES
    session = compile_profile(Scheduling(SchedulingProfile.DEFAULT, (ScorerWeight(Scorer.SESSION_AFFINITY, 1),), "X-Chat"))
    assert (session.keys_from, session.session_header, session.prefixes) == (0, b"x-chat", False)
    assert compile_profile(declared(SchedulingProfile.BALANCED)).keys_from == KEYS_FROM_BYTES


def test_own_weights_change_a_profiles_and_0_takes_a_scorer_out():
    assert compile_profile(declared(SchedulingProfile.NODE_LOAD)).parts == ("GPUUtilization", "KVCache", "QueueDepth")
    assert compile_profile(declared(SchedulingProfile.NODE_LOAD, KVCache=0, Load=5)).parts == (
        "GPUUtilization",
        "QueueDepth",
        "Load",
    )
    assert compile_profile(declared(Latency=1)).by_wait, "among endpoints nothing was declared"


def test_weights_decide_between_scorers_and_the_record_tells_how():
    of = pool(2)
    of.targets[0].report(Load(gpu_ratio=0.9, kv_cache_ratio=0.1), 100.0)
    of.targets[1].report(Load(gpu_ratio=0.1, kv_cache_ratio=0.9), 100.0)
    seen: list[Candidate] = []
    assert compile_profile(declared(GPUUtilization=3, KVCache=1)).pick(of, request(), VIEW, (), seen) is of.targets[1]
    assert seen[0] == ("e0", pytest.approx(0.3), pytest.approx((0.1, 0.9)))
    assert compile_profile(declared(GPUUtilization=1, KVCache=3)).pick(of, request(), VIEW) is of.targets[0]


def test_filters_come_first_and_a_probe_is_due_whatever_the_scores():
    of = pool(3)
    of.targets[0].mark(draining=True)
    profile = compile_profile(declared(InFlight=1))
    seen: list[Candidate] = []
    assert profile.pick(of, request(), VIEW, (of.targets[1],), seen) is of.targets[2]
    assert [verdict for _, verdict, _ in seen[:2]] == [Eliminated.DRAINING, Eliminated.TRIED]
    of.targets[2].failed(0.0, hard=True)
    of.targets[2].sent(1)
    of.targets[2].probing = False
    assert profile.pick(of, request(), VIEW) is of.targets[2]
    assert profile.pick(pool(0), request(), VIEW) is None


def test_ties_are_broken_at_random():
    of = pool(4)
    profile = compile_profile(declared(QueueDepth=1))
    taken = Counter(profile.pick(of, request(), VIEW).id for _ in range(400))  # type: ignore[union-attr]
    assert all(60 < times < 140 for times in taken.values()), taken
    assert len(taken) == 4


def test_of_many_a_sample_is_compared_with_the_homes_in_it():
    of = pool(10 * SCAN_ALL)
    homes = of.homes.of(9)
    assert homes is not None
    seen: list[Candidate] = []
    profile = compile_profile(declared(SessionAffinity=1, Load=1))
    assert profile.pick(of, request(session=9), VIEW, (), seen) is homes[0]
    assert len(seen) == SAMPLE + 2
    for endpoint in of.targets[1:]:
        endpoint.mark(draining=True)
    assert profile.pick(of, request(), VIEW) is of.targets[0], "the last one is found"


def test_an_adapters_home_is_in_every_sample():
    of = pool(10 * SCAN_ALL)
    profile = compile_profile(declared(LoRAAffinity=1))
    asked = request()
    asked.adapter = "summaries"
    assert len({profile.pick(of, asked, VIEW).id for _ in range(20)}) == 1  # type: ignore[union-attr]


def test_round_robin_takes_turns_past_those_that_are_out():
    of = pool(3)
    of.targets[1].mark(draining=True)
    profile = compile_profile(declared(SchedulingProfile.ROUND_ROBIN))
    assert [profile.pick(of, request(), VIEW).id for _ in range(4)] == ["e2", "e0", "e2", "e0"]  # type: ignore[union-attr]
    assert not profile.by_wait
    seen: list[Candidate] = []
    assert profile.pick(of, request(), VIEW, of.targets, seen) is None
    assert {verdict for _, verdict, _ in seen} == {Eliminated.TRIED, Eliminated.DRAINING}


def test_a_prompt_that_begins_like_others_goes_home_until_another_place_is_sooner():
    of = pool(6)
    homes = of.homes.of(5)
    assert homes is not None
    for endpoint in of.targets:
        endpoint.report(Load(waiting_tokens=3000), 100.0)
    of.prefixes.meets(5, 1)
    asked = request(2000, prefix=5)
    home, deputy = homes
    assert DEFAULT.pick(of, asked, VIEW) is home
    home.report(Load(waiting_tokens=4500), 100.0)
    assert DEFAULT.pick(of, asked, VIEW) is deputy
    deputy.report(Load(waiting_tokens=4500), 100.0)
    home.report(Load(waiting_tokens=5500), 100.0)
    assert DEFAULT.pick(of, asked, VIEW) not in homes


def test_a_home_that_fails_saves_nothing():
    of = pool(4)
    homes = of.homes.of(5)
    assert homes is not None
    of.prefixes.meets(5, 1)
    assert DEFAULT.pick(of, request(2000, prefix=5), VIEW) is homes[0]
    homes[0].failed(100.0, hard=False)
    homes[0].factor = 1.0
    assert DEFAULT.pick(of, request(2000, prefix=5), VIEW) is homes[1]


def test_the_bound_of_a_request_is_what_the_next_best_would_make_it_wait():
    of = pool(2)
    of.speed.mean_cost = 300.0
    of.targets[0].report(Load(waiting_tokens=1000), 100.0)
    of.targets[1].report(Load(waiting_tokens=5000), 100.0)
    asked = request(500)
    assert DEFAULT.pick(of, asked, VIEW) is of.targets[0]
    wait = of.targets[1].wait_tokens(1, 100.0) + 500
    assert asked.limit == int(wait - 500 + 300.0)
    assert DEFAULT.pick(of, asked, VIEW, (of.targets[1],)) is of.targets[0]
    assert asked.limit == 0, "with nowhere else to go it waits"


def test_backends_are_drawn_by_weight_or_by_weight_and_score():
    cheap, dear = pool(1), pool(1)
    cheap.cost, dear.cost = (1.0, 1.0), (2.0, 2.0)
    backends = (Backend(3.0, cheap), Backend(1.0, dear))
    assert DEFAULT.shares(backends, request(), VIEW) == [3.0, 1.0]
    shares = compile_profile(declared(Cost=1)).shares(backends, request(), VIEW)
    assert shares == pytest.approx([3.0, 1.0 / 16.0])
    balanced = compile_profile(declared(SchedulingProfile.BALANCED)).shares(backends, request(), VIEW)
    assert balanced[0] / balanced[1] > 3.0


@pytest.mark.parametrize(("draw", "expected"), [(0.0, "abc"), (0.24, "abc"), (0.26, "bac"), (0.76, "cab"), (0.999, "cab")])
def test_one_is_drawn_by_its_share_and_the_others_follow(draw: float, expected: str):
    assert "".join(drawn(("a", "b", "c"), [1.0, 2.0, 1.0], draw)) == expected
