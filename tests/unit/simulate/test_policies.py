"""Policies in small worlds: the production code does what it promises, and the others what their names say."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from spillway.simulate.engine import EngineSpec
from spillway.simulate.experiment import Experiment, Job, run_job
from spillway.simulate.faults import Fault
from spillway.simulate.measure import Figures
from spillway.simulate.policies import POLICIES, UnknownPolicy, find
from spillway.simulate.policies.ours import Ours
from spillway.simulate.traffic import PLAIN, SHARED, Arrival
from spillway.simulate.world import Setting, World
from spillway_sidecar.balancing import choose as production
from spillway_sidecar.scheduling.state import EndpointState

USUAL = Experiment(seconds=20.0, warmup_seconds=5.0)


def figures(experiment: Experiment, policy: str, seed: int = 1) -> Figures:
    return run_job(experiment, Job(0, policy, seed)).figures


@pytest.mark.parametrize("policy", POLICIES)
def test_every_request_of_every_policy_ends_once(policy: str):
    experiment = Experiment(Setting(routers=3, endpoints=4, slow_endpoints=1), SHARED, seconds=5.0, warmup_seconds=0.0)
    arrivals = list(experiment.arrivals(1))
    run = World(experiment.setting, find(policy), 1).run(arrivals)
    assert len(run.requests) == len(arrivals)
    assert all(r.arrived_at < r.first_at <= r.ended_at and not r.failed for r in run.requests)


@pytest.mark.parametrize("policy", POLICIES)
def test_a_seed_gives_the_same_run_again(policy: str):
    experiment = Experiment(Setting(routers=4, endpoints=4), seconds=5.0, warmup_seconds=1.0).with_fault(Fault.LOST)
    assert run_job(experiment, Job(0, policy, 5)) == run_job(experiment, Job(0, policy, 5))
    assert figures(experiment, policy, 5) != figures(experiment, policy, 6)


def test_ours_is_the_code_that_the_proxies_run():
    world = World(Setting(routers=2, endpoints=3, slow_endpoints=0), Ours, 0)
    assert isinstance(world.policy, Ours)
    assert Ours.choose.__globals__["choose"] is production.choose
    assert all(type(state) is EndpointState for view in world.policy.views for state in view.pool.targets)
    assert world.policy.views[0].pool.targets[0] is not world.policy.views[1].pool.targets[0], (
        "each router has a picture of its own"
    )


def test_what_a_router_counts_is_zero_when_all_has_ended():
    world = World(Setting(routers=3, endpoints=4), Ours, 0)
    world.run(SHARED.arrivals(10.0, 10.0, 0))
    assert isinstance(world.policy, Ours)
    for view in world.policy.views:
        for state in view.pool.targets:
            assert (state.in_flight, state.in_flight_tokens, state.awaiting_tokens) == (0, 0, 0)
    assert all(budget.in_flight == 0 == budget.retrying for budget in world.budgets)


@pytest.mark.parametrize("routers", [1, 2, 4])
@pytest.mark.parametrize("rate", [10, 40, 80])
def test_ours_leaves_no_endpoint_out_among_equals(routers: int, rate: int):
    engine = EngineSpec(prefill_tokens_per_second=20_000, decode_tokens_per_second=200)
    world = World(Setting(routers=routers, endpoints=3, slow_endpoints=0, engine=engine), Ours, 0)
    run = world.run(Arrival(n / rate, 500, 8) for n in range(160))
    counts = Counter(request.endpoint for request in run.requests)
    assert min(counts[index] for index in range(3)) > 160 / 3 / 3, counts


def test_ours_is_better_than_least_request_with_many_routers():
    ours, least = figures(USUAL, "ours"), figures(USUAL, "least-request")
    assert ours.ttft_p99_seconds < 0.8 * least.ttft_p99_seconds


def test_ours_knows_engines_that_are_short_of_places():
    short = replace(USUAL, setting=replace(USUAL.setting, engine=EngineSpec(max_running=12)), warmup_seconds=40.0)
    ours, least = figures(short, "ours"), figures(short, "least-request")
    assert ours.ttft_p99_seconds < 0.7 * least.ttft_p99_seconds


def test_ours_keeps_prompts_together_that_begin_alike():
    shared = replace(USUAL, traffic=SHARED)
    ours, least = figures(shared, "ours"), figures(shared, "least-request")
    assert ours.hit_ratio is not None
    assert least.hit_ratio is not None
    assert ours.hit_ratio > least.hit_ratio + 0.1
    assert ours.ttft_p99_seconds < 0.6 * least.ttft_p99_seconds


@pytest.mark.parametrize("fault", [Fault.SLOW, Fault.FAILING])
def test_ours_leaves_an_endpoint_that_is_slow_or_fails(fault: Fault):
    bad = figures(USUAL.with_fault(fault), "ours")
    assert bad.faulty_share is not None
    assert bad.faulty_share < 0.02 < 1 / 16
    assert bad.failed_ratio < 0.01


@pytest.mark.parametrize("fault", [Fault.ZERO, Fault.FROZEN, Fault.NAN, Fault.LOST, Fault.OLD])
def test_ours_bears_words_that_are_wrong(fault: Fault):
    assert figures(USUAL.with_fault(fault), "ours").ttft_p99_seconds < 2.2 * figures(USUAL, "ours").ttft_p99_seconds


def test_the_oracle_sees_what_routers_do_not():
    assert figures(USUAL, "oracle").ttft_p99_seconds < figures(USUAL, "queue-kv-50ms").ttft_p99_seconds


def test_round_robin_takes_turns_and_passes_over_where_it_has_been():
    world = World(Setting(routers=1, endpoints=4, slow_endpoints=0), find("round-robin"), 0)
    run = world.run(Arrival(index * 100.0, 10, 2) for index in range(8))
    places = [request.endpoint for request in run.requests]
    assert places[:4] == places[4:]
    assert sorted(places[:4]) == [0, 1, 2, 3]


def test_a_policy_of_a_file_is_found_by_its_class(tmp_path: Path):
    (tmp_path / "mine.py").write_text(
        "from spillway.simulate.policies.base import Policy\n"
        "class First(Policy):\n"
        "    def choose(self, request, now):\n"
        "        return 0\n"
    )
    found = find(f"{tmp_path}/mine.py:First")
    run = World(Setting(endpoints=3), found, 0).run(PLAIN.arrivals(2.0, 5.0, 0))
    assert {request.endpoint for request in run.requests} == {0}


@pytest.mark.parametrize("name", ["best", "none.py:First", "{tmp}/mine.py:Second", "{tmp}/mine.py:os"])
def test_what_is_no_policy_is_named_with_what_there_is(tmp_path: Path, name: str):
    (tmp_path / "mine.py").write_text("import os\n")
    with pytest.raises(UnknownPolicy, match="least-request"):
        find(name.format(tmp=tmp_path))
