"""The load store: identity and order of reports, ages, windows, forgetting."""

from __future__ import annotations

import pytest
from tests.fakes.operator_core import node, report

from spillway_operator.loads.store import LoadStore, ReportOutcome
from spillway_operator.loads.windows import BUCKETS
from spillway_wire.loads import BackendTraffic, ClusterProblem, Demand, Load, RouteErrors
from spillway_wire.names import Role

A = node("a")


def _traffic(requests: int = 10, **fields: object) -> BackendTraffic:
    return BackendTraffic(route="default/chat", rule="all", cluster="default/fast", requests=requests, **fields)  # type: ignore[arg-type]


# -- order and identity


def test_a_report_is_a_load_of_the_endpoint_of_its_node():
    store = LoadStore()
    assert store.accept(A, report(load=Load(in_flight=3)), 10.0) is ReportOutcome.ACCEPTED
    found = store.endpoint("a", 10.5)
    assert found is not None
    assert found.load.in_flight == 3
    assert found.age_seconds == pytest.approx(0.5)
    assert not found.stale
    assert store.endpoint("b", 10.5) is None


@pytest.mark.parametrize("sequence", [4, 5])
def test_a_sequence_that_does_not_rise_is_refused(sequence: int):
    store = LoadStore()
    store.accept(A, report(5, load=Load(in_flight=1)), 10.0)
    assert store.accept(A, report(sequence, load=Load(in_flight=9)), 11.0) is ReportOutcome.OUT_OF_ORDER
    found = store.endpoint("a", 11.0)
    assert found is not None
    assert found.load.in_flight == 1
    assert found.age_seconds == pytest.approx(1.0)


def test_a_new_boot_begins_its_own_sequence_and_the_old_one_never_comes_back():
    store = LoadStore()
    store.accept(A, report(9, load=Load(in_flight=1)), 10.0)
    reborn = node("a", boot="b2")
    assert store.accept(reborn, report(0, boot="b2", load=Load(in_flight=2)), 11.0) is ReportOutcome.ACCEPTED
    assert store.accept(A, report(10, load=Load(in_flight=8)), 12.0) is ReportOutcome.REPLACED
    found = store.endpoint("a", 12.0)
    assert found is not None
    assert found.load.in_flight == 2


def test_a_new_boot_does_not_inherit_the_load_of_the_old_one():
    store = LoadStore()
    store.accept(A, report(9, load=Load(in_flight=1)), 10.0)
    store.accept(node("a", boot="b2"), report(0, boot="b2"), 11.0)
    assert store.endpoint("a", 11.0) is None


def test_a_gateway_has_no_endpoint_to_speak_of():
    store = LoadStore()
    store.accept(node("a", role=Role.GATEWAY), report(load=Load(in_flight=1)), 10.0)
    assert store.endpoint("a", 10.0) is None


def test_a_report_of_another_boot_than_the_hello_is_refused():
    store = LoadStore()
    assert store.accept(A, report(1, boot="other"), 10.0) is ReportOutcome.FOREIGN
    assert store.info()["nodes"] == 0


def test_a_histogram_of_another_size_is_refused_whole():
    store = LoadStore()
    outcome = store.accept(A, report(load=Load(in_flight=1), traffic=(_traffic(ttft=(1, 2)),)), 10.0)
    assert outcome is ReportOutcome.MALFORMED
    assert store.endpoint("a", 10.0) is None


def test_outcomes_are_counted_and_told():
    told: list[ReportOutcome] = []
    store = LoadStore(on_outcome=told.append)
    store.accept(A, report(1), 10.0)
    store.accept(A, report(1), 10.0)
    assert told == [ReportOutcome.ACCEPTED, ReportOutcome.OUT_OF_ORDER]
    assert store.info()["reports"]["out_of_order"] == 1


# -- age


def test_a_load_is_stale_after_three_intervals_and_keeps_its_figures():
    store = LoadStore(interval_seconds=1.0)
    store.accept(A, report(load=Load(in_flight=7)), 10.0)
    before, after = store.endpoint("a", 12.99), store.endpoint("a", 13.0)
    assert before is not None
    assert after is not None
    assert (before.stale, after.stale) == (False, True)
    assert after.load.in_flight == 7


def test_a_report_without_a_load_does_not_make_the_last_one_younger():
    store = LoadStore()
    store.accept(A, report(1, load=Load(in_flight=7)), 10.0)
    store.accept(A, report(2), 12.0)
    found = store.endpoint("a", 12.0)
    assert found is not None
    assert found.age_seconds == pytest.approx(2.0)


def test_sums_over_a_backend_leave_out_who_is_silent():
    store = LoadStore()
    store.accept(A, report(load=Load(in_flight=7, max_concurrency=10)), 10.0)
    load = store.backend(["a", "b"], 10.0)
    assert (load.known, load.total, load.in_flight) == (1, 2, 7)


# -- windows


def test_rates_are_over_the_last_ten_seconds():
    store = LoadStore()
    for second in range(20):
        store.accept(A, report(second, traffic=(_traffic(10, errors=1, input_tokens=30, output_tokens=50),)), 100.0 + second)
    rates = store.route_traffic("default/chat", 119.0)
    assert rates.requests == 100
    # Ten reports in the slots of 110..119, which cover the nine seconds up to 119.0.
    assert rates.requests_per_second == pytest.approx(100 / 9)
    assert rates.error_ratio == pytest.approx(0.1)
    assert rates.output_tokens_per_second == pytest.approx(500 / 9)
    assert rates.input_tokens_per_second == pytest.approx(300 / 9)


def test_what_is_older_than_the_window_does_not_count():
    store = LoadStore()
    store.accept(A, report(traffic=(_traffic(10),)), 100.0)
    assert store.route_traffic("default/chat", 109.9).requests == 10
    assert store.route_traffic("default/chat", 110.0).requests == 0


def test_a_slot_that_comes_round_again_begins_empty():
    store = LoadStore()
    store.accept(A, report(1, traffic=(_traffic(10),)), 100.0)
    store.accept(A, report(2, traffic=(_traffic(3),)), 110.5)
    assert store.route_traffic("default/chat", 110.6).requests == 3


def test_histograms_of_reports_and_proxies_are_merged():
    store = LoadStore()
    quick, slow = [0] * BUCKETS, [0] * BUCKETS
    quick[0], slow[13] = 90, 10
    store.accept(A, report(1, traffic=(_traffic(90, ttft=tuple(quick)),)), 100.0)
    store.accept(A, report(2, traffic=(_traffic(0, ttft=tuple(quick)),)), 100.1)
    store.accept(node("b"), report(1, traffic=(_traffic(10, ttft=tuple(slow)),)), 101.0)
    p95 = store.route_traffic("default/chat", 101.5).ttft_p95_seconds
    assert p95 is not None
    assert p95 == pytest.approx(0.75 + 0.25 * (190 * 0.95 - 180) / 10)


def test_attempts_that_were_made_good_elsewhere_count_against_the_backend_where_they_failed():
    store = LoadStore()
    store.accept(A, report(traffic=(_traffic(10, errors=1, retries=30),)), 100.0)
    rates = store.backend_traffic("default/fast", 100.0)
    assert (rates.requests, rates.attempts) == (10, 40)
    assert rates.error_ratio == pytest.approx(0.1)
    assert rates.failed_ratio == pytest.approx(31 / 40)


def test_requests_refused_before_a_choice_are_errors_of_the_route_and_of_no_backend():
    store = LoadStore()
    store.accept(A, report(traffic=(_traffic(9),), refused=(RouteErrors(route="default/chat", requests=1),)), 100.0)
    assert store.route_traffic("default/chat", 100.0).error_ratio == pytest.approx(0.1)
    assert store.backend_traffic("default/fast", 100.0).error_ratio == 0
    assert store.backend_traffic("", 100.0).requests == 0
    assert list(store.requests("default/chat", 100.0)) == ["default/fast"]


def test_the_first_second_of_a_series_is_not_blown_up():
    store = LoadStore()
    store.accept(A, report(traffic=(_traffic(10),)), 0.2)
    assert store.route_traffic("default/chat", 0.3).requests_per_second <= 10


# -- bounds


def test_series_beyond_the_cap_are_refused_and_the_rest_counts():
    store = LoadStore(max_series=1)
    other = BackendTraffic(route="default/other", rule="all", cluster="default/fast", requests=5)
    outcome = store.accept(A, report(traffic=(_traffic(1), other), refused=(RouteErrors(route="default/x", requests=1),)), 100.0)
    assert outcome is ReportOutcome.OVERFLOW
    assert store.route_traffic("default/chat", 100.0).requests == 1
    assert store.route_traffic("default/other", 100.0).requests == 0


def test_series_without_traffic_expire_and_their_indexes_with_them():
    store = LoadStore()
    other = BackendTraffic(route="default/chat", rule="more", cluster="default/fast", requests=5)
    store.accept(A, report(1, traffic=(_traffic(1),)), 100.0)
    store.accept(A, report(2, traffic=(other,)), 108.0)
    store.sweep(112.0)
    assert store.info()["series"] == 1
    assert store.backend_traffic("default/fast", 112.0).requests == 5
    store.sweep(130.0)
    assert store.info()["series"] == 0
    assert store._by_route == {}
    assert store._by_cluster == {}


def test_nodes_that_are_gone_are_forgotten():
    store = LoadStore()
    store.accept(A, report(load=Load(in_flight=1)), 100.0)
    store.accept(node("b"), report(load=Load(in_flight=1)), 100.0)
    store.retain({"b"})
    assert store.endpoint("a", 100.0) is None
    assert store.endpoint("b", 100.0) is not None


# -- gauges


def test_demand_is_summed_over_routers_that_report():
    store = LoadStore()
    store.accept(A, report(demand=(Demand(cluster="default/x", in_flight=3), Demand(cluster="default/y", in_flight=1))), 100.0)
    store.accept(node("b"), report(demand=(Demand(cluster="default/x", in_flight=4),)), 101.0)
    assert store.demand(101.0) == {"default/x": 7, "default/y": 1}
    assert store.demand(103.5) == {"default/x": 4}


def test_what_is_held_and_what_comes_is_summed_too():
    store = LoadStore()
    for sequence, name in enumerate(("a", "b"), 1):
        demand = Demand("default/x", held=10 * sequence, held_tokens=1000, arrived_tokens=5000)
        store.accept(node(name), report(sequence, demand=(demand,)), 100.0)
    asked = store.asked(101.0)
    assert asked is not None
    assert (asked["default/x"].held, asked["default/x"].held_tokens) == (30, 2000)
    assert asked["default/x"].arrived_tokens_per_second == pytest.approx(1000.0, rel=0.2)
    assert not asked["default/x"].partial


def test_the_share_of_a_router_that_has_fallen_silent_is_unknown_and_not_nothing():
    store = LoadStore()
    store.accept(A, report(demand=(Demand("default/x", held=10), Demand("default/y", in_flight=1))), 100.0)
    store.accept(node("b"), report(demand=(Demand("default/z", held=5),)), 103.0)
    asked = store.asked(103.5)
    assert asked is not None
    assert {cluster: each.partial for cluster, each in asked.items()} == {"default/x": True, "default/y": True, "default/z": False}
    store.retain({"b"})
    assert store.asked(103.5) == {"default/z": asked["default/z"]}


def test_demand_is_unknown_when_nobody_reports():
    store = LoadStore()
    assert store.demand(100.0) is None
    store.accept(A, report(), 100.0)
    assert store.demand(100.0) == {}
    assert store.demand(104.0) is None


def test_problems_are_those_of_the_latest_report():
    store = LoadStore()
    problem = ClusterProblem(cluster="default/x", reason="SecretMissing", message="no key")
    store.accept(node("b"), report(1, problems=(problem,)), 100.0)
    store.accept(A, report(1, problems=(problem,)), 100.0)
    assert [found.node for found in store.problems()["default/x"]] == ["a", "b"]
    store.accept(A, report(2), 101.0)
    assert [found.node for found in store.problems()["default/x"]] == ["b"]
