"""Scorers: what each calls best, what it makes of the unknown, and that all keep to 0..1."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.picking import Chance, request

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.scorers import AMONG_BACKENDS, AMONG_ENDPOINTS
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import STALE_SECONDS, EndpointState
from spillway_wire.loads import Load
from spillway_wire.names import Scorer

NOW = 100.0
VIEW = Chance(2, NOW, lambda: 0.5)


def pool(*loads: Load | None, name: str = "p") -> Pool[EndpointState]:
    """Endpoints that have said these loads just now."""
    speed = ClusterSpeed()
    made: Pool[EndpointState] = Pool(name, [EndpointState(f"e{n}", True, speed) for n in range(len(loads))], speed)
    for endpoint, load in zip(made.targets, loads, strict=True):
        endpoint.limit(64, 16)
        if load is not None:
            endpoint.report(load, NOW)
    return made


def scores(scorer: Scorer, of: Pool[EndpointState], asked: Any = None, now: float = NOW) -> list[float]:
    return AMONG_ENDPOINTS[scorer](of.targets, of, asked or request(), Chance(2, now, lambda: 0.5))


def test_every_name_has_a_scorer_at_one_level():
    assert set(AMONG_ENDPOINTS) | set(AMONG_BACKENDS) == set(Scorer)
    assert not set(AMONG_ENDPOINTS) & set(AMONG_BACKENDS)


ratios = st.none() | st.floats(0, 1)
loads = st.builds(
    Load,
    in_flight=st.integers(0, 99),
    queued=st.integers(0, 99),
    engine_waiting=st.none() | st.integers(0, 99),
    kv_cache_ratio=ratios,
    gpu_ratio=ratios,
    cpu_ratio=ratios,
    memory_ratio=ratios,
    waiting_tokens=st.none() | st.integers(0, 99_999),
    adapters=st.just(()) | st.just(("x",)),
)


@given(
    st.lists(st.none() | loads, min_size=1, max_size=6), st.sampled_from(list(AMONG_ENDPOINTS)), st.integers(0, 9), st.floats(0, 9)
)
def test_scores_are_of_0_to_1_whatever_is_said(said: list[Load | None], scorer: Scorer, key: int, later: float):
    asked = request(prefix=key, session=key)
    asked.adapter = "x"
    assert all(0.0 <= score <= 1.0 for score in scores(scorer, pool(*said), asked, NOW + later))


def test_load_halves_with_twice_the_wait():
    of = pool(Load(waiting_tokens=0), Load(waiting_tokens=0))
    slow = of.targets[1]
    slow.factor = 2.0
    assert scores(Scorer.LOAD, of) == pytest.approx([1.0, 0.5])


def test_queue_depth_counts_what_was_sent_since_and_gives_the_silent_the_mean():
    of = pool(Load(engine_waiting=4), Load(queued=1), None)
    for _ in range(3):
        of.targets[1].sent(10)
    assert scores(Scorer.QUEUE_DEPTH, of) == [1.0, 1.0, 1.0]
    of.targets[1].sent(10)
    assert scores(Scorer.QUEUE_DEPTH, of) == [1.0, 0.0, 0.5]


def test_in_flight_is_by_the_own_count():
    of = pool(Load(in_flight=50), None, None)
    of.targets[1].sent(10)
    assert scores(Scorer.IN_FLIGHT, of) == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("scorer", "own", "instead"),
    [(Scorer.KV_CACHE, "kv_cache_ratio", "memory_ratio"), (Scorer.GPU_UTILIZATION, "gpu_ratio", "cpu_ratio")],
)
def test_what_the_engine_has_not_is_taken_from_its_node_and_what_is_unknown_is_the_mean(scorer: Scorer, own: str, instead: str):
    of = pool(Load(**{own: 0.25, instead: 1.0}), Load(**{instead: 0.75}), Load())  # type: ignore[arg-type]
    assert scores(scorer, of) == [0.75, 0.25, 0.5]
    assert scores(scorer, of, now=NOW + STALE_SECONDS + 1) == [0.5, 0.5, 0.5]


def test_keys_lead_home():
    of = pool(*[None] * 5)
    homes = of.homes.of(7)
    assert homes is not None
    expected = [1.0 if e is homes[0] else 0.5 if e is homes[1] else 0.0 for e in of.targets]
    assert scores(Scorer.SESSION_AFFINITY, of, request(session=7)) == expected
    assert scores(Scorer.SESSION_AFFINITY, of) == [0.0] * 5
    of.prefixes.meets(7, 1)
    assert scores(Scorer.PREFIX_AFFINITY, of, request(prefix=7)) == expected
    assert scores(Scorer.PREFIX_AFFINITY, of) == [0.0] * 5


def test_a_prefix_that_nobody_shares_ties_nothing():
    of = pool(*[None] * 5)
    assert scores(Scorer.PREFIX_AFFINITY, of, request(prefix=7)) == [0.0] * 5


def test_an_adapter_is_asked_for_where_it_is_loaded_else_at_its_home():
    asked = request()
    asked.adapter = "summaries"
    assert scores(Scorer.LORA_AFFINITY, pool(Load(adapters=("other",)), Load(adapters=("a", "summaries"))), asked) == [0.0, 1.0]
    at_home = scores(Scorer.LORA_AFFINITY, pool(Load(adapters=("other",)), Load(), None), asked)
    assert sorted(at_home) == [0.0, 0.5, 1.0]


def test_the_quicker_the_surer_and_the_cheaper_backend():
    quick, slow, fresh = pool(None), pool(None), pool(None)
    for _ in range(50):
        quick.speed.observe(True, 0.1, 100)
        slow.speed.observe(True, 0.2, 100)
    asked = request(1064)
    by_latency = AMONG_BACKENDS[Scorer.LATENCY]([quick, slow, fresh], asked, VIEW)
    assert by_latency == pytest.approx([1.0, 0.5, 2 / 3])
    for _ in range(14):
        slow.targets[0].failed(NOW, hard=False)
    by_success = AMONG_BACKENDS[Scorer.SUCCESS_RATE]([quick, slow], asked, VIEW)
    assert by_success[0] == 1.0
    assert by_success[1] < 0.5
    quick.cost, slow.cost = (2.0, 8.0), (1.0, 4.0)
    assert AMONG_BACKENDS[Scorer.COST]([quick, slow, fresh], asked, VIEW) == pytest.approx([0.5, 1.0, 2 / 3])
    free = pool(None)
    free.cost = (0.0, 0.0)
    assert AMONG_BACKENDS[Scorer.COST]([quick, free], asked, VIEW) == [0.0, 1.0]


def test_a_backend_that_works_again_is_believed_again():
    of = pool(None)
    for _ in range(14):
        of.targets[0].failed(NOW, hard=False)
    for _ in range(200):
        of.targets[0].succeeded(NOW + 60)
    assert of.speed.success_ratio > 0.99
