"""What holds for load reports, whatever proxies send and in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.operator_core import node

from spillway_operator.loads.figures import ttft_quantile
from spillway_operator.loads.store import LoadStore, ReportOutcome
from spillway_operator.loads.windows import BUCKETS, WINDOW_SLOTS
from spillway_wire.loads import TTFT_BUCKETS_SECONDS, BackendTraffic, Load
from spillway_wire.messages import Report

histograms = st.lists(st.integers(0, 1000), min_size=BUCKETS, max_size=BUCKETS)


@given(st.lists(st.tuples(st.sampled_from(["b1", "b2", "b3"]), st.integers(0, 5), st.integers(0, 100))))
def test_the_load_is_that_of_the_last_report_that_was_accepted(sent: list[tuple[str, int, int]]):
    store = LoadStore()
    expected = None
    boots_seen: list[str] = []
    last: dict[str, int] = {}
    for at, (boot, sequence, in_flight) in enumerate(sent):
        outcome = store.accept(node("a", boot=boot), Report(boot, sequence, Load(in_flight=in_flight)), float(at))
        if boot in boots_seen[:-1]:
            assert outcome is ReportOutcome.REPLACED
        elif sequence <= last.get(boot, -1):
            assert outcome is ReportOutcome.OUT_OF_ORDER
        else:
            assert outcome is ReportOutcome.ACCEPTED
            if boot not in boots_seen:
                boots_seen.append(boot)
            last[boot] = sequence
            expected = in_flight
    found = store.endpoint("a", float(len(sent)))
    assert (None if found is None else found.load.in_flight) == expected


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 50)), max_size=60))
def test_the_window_counts_what_happened_within_it(course: list[tuple[float, int]]):
    store = LoadStore()
    now = 1000.0
    events = []
    for sequence, (step, requests) in enumerate(course):
        now += step
        traffic = BackendTraffic(route="d/r", rule="all", cluster="d/c", requests=requests, errors=min(requests, 1))
        store.accept(node("a"), Report("b1", sequence, traffic=(traffic,)), now)
        events.append((now, requests))
    rates = store.route_traffic("d/r", now)
    assert rates.requests == sum(requests for at, requests in events if int(at) > int(now) - WINDOW_SLOTS)
    assert 0 <= rates.error_ratio <= 1
    assert rates.requests_per_second == pytest.approx(rates.requests / (now - int(now) + WINDOW_SLOTS - 1))


@given(histograms, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_rise_with_the_rank_and_stay_within_the_bounds(counts: list[int], one: float, other: float):
    low, high = sorted((one, other))
    below, above = ttft_quantile(counts, low), ttft_quantile(counts, high)
    if not any(counts):
        assert below is None
        return
    assert below is not None
    assert above is not None
    assert 0 <= below <= above + 1e-12
    assert above <= TTFT_BUCKETS_SECONDS[-1]


@given(st.lists(st.sets(st.sampled_from("abcdef")), max_size=10))
def test_memory_holds_the_connected_nodes_only(connected: list[set[str]]):
    store = LoadStore()
    for at, names in enumerate(connected):
        for name in sorted(names):
            store.accept(node(name), Report("b1", at, Load()), float(at))
        store.retain(names)
        assert store.info()["nodes"] == len(names)
