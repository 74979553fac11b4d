"""Counters: what is drained is what was counted, whenever it is drained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest

from spillway_sidecar.scheduling.filters.eligible import Eliminated
from spillway_sidecar.telemetry import accesslog
from spillway_sidecar.telemetry.accesslog import AccessLog
from spillway_sidecar.telemetry.decisions import Decision, DecisionRing
from spillway_sidecar.telemetry.exposition import InboundCollector, RecoveryCollector, TrafficCollector
from spillway_sidecar.telemetry.stats import BUCKETS, Histogram, TrafficStats
from spillway_wire.names import RequestType

_steps = st.lists(
    st.one_of(
        st.tuples(st.just("request"), st.integers(0, 2), st.sampled_from(["ok", "client_gone", "interrupted"]), st.floats(0, 100)),
        st.tuples(st.just("refuse"), st.integers(0, 2)),
        st.tuples(st.just("drain")),
    ),
    max_size=60,
)


@given(_steps)
def test_drained_parts_add_up_to_the_totals(steps: list[tuple[object, ...]]):
    stats = TrafficStats(("ok", "client_gone"))
    drained: dict[str, list[int]] = {}
    refused: dict[str, int] = {}

    def drain() -> None:
        for part in stats.traffic():
            sums = drained.setdefault(part.cluster, [0] * 6)
            for index, value in enumerate((part.requests, part.errors, part.retries, part.input_tokens, part.output_tokens, sum(part.ttft))):  # fmt: skip
                assert value >= 0
                sums[index] += value
        for item in stats.refused():
            refused[item.route] = refused.get(item.route, 0) + item.requests

    for step in [*steps, ("drain",)]:
        if step[0] == "request":
            _, which, outcome, seconds = step
            backend = stats.backend("r", "x", f"c{which}")
            backend.outcomes[str(outcome)] = backend.outcomes.get(str(outcome), 0) + 1
            backend.retries += 1
            backend.input_tokens += 7
            backend.output_tokens += 3
            backend.ttft.observe(float(str(seconds)))
        elif step[0] == "refuse":
            stats.refuse(f"r{step[1]}", "no_rule")
        else:
            drain()
    for name, sums in drained.items():
        backend = stats.backend("r", "x", name)
        total = sum(backend.outcomes.values())
        assert sums == [total, backend.outcomes.get("interrupted", 0), total, 7 * total, 3 * total, total]
    assert sum(refused.values()) == sum(sum(r.outcomes.values()) for r in stats.refusals.values())
    assert (stats.traffic(), stats.refused()) == ((), ())


def test_what_has_no_route_is_counted_and_not_reported():
    stats = TrafficStats(())
    stats.refuse("", "bad_request")
    assert stats.refused() == ()
    assert stats.refusals[""].outcomes == {"bad_request": 1}


def test_routes_that_are_gone_are_forgotten():
    stats = TrafficStats(())
    stats.backend("a", "x", "c").retries = 1
    stats.backend("b", "x", "c").retries = 1
    for route in ("", "a", "b"):
        stats.refuse(route, "no_rule")
    stats.keep_only({"b"})
    assert [part.route for part in stats.traffic()] == ["b"]
    assert sorted(stats.refusals) == ["", "b"]


@pytest.mark.parametrize(("seconds", "index"), [(0.0, 0), (BUCKETS[0], 0), (BUCKETS[0] + 1e-9, 1), (BUCKETS[-1], len(BUCKETS) - 1), (1e9, len(BUCKETS))])  # fmt: skip
def test_a_bucket_holds_its_upper_bound(seconds: float, index: int):
    histogram = Histogram()
    histogram.observe(seconds)
    assert histogram.counts[index] == 1
    assert sum(histogram.counts) == 1


def test_metrics_are_the_counters():
    stats = TrafficStats(("ok",))
    backend = stats.backend("ns/r", "x", "ns/c")
    backend.outcomes["ok"] = 2
    backend.retries = 1
    backend.ttft.observe(0.07)
    backend.ttft.observe(100.0)
    stats.refuse("ns/r", "no_rule")
    registry = CollectorRegistry()
    registry.register(TrafficCollector(stats, lambda: {"spillway_connections": 3.0}))
    registry.register(InboundCollector(lambda: {"in_flight": 1.0, "gpu": None}, lambda: {"ok": 5}, Histogram()))
    text = generate_latest(registry).decode()
    for line in (
        'spillway_requests_total{backend="ns/c",outcome="ok",route="ns/r",rule="x"} 2.0',
        'spillway_retries_total{backend="ns/c",route="ns/r",rule="x"} 1.0',
        'spillway_time_to_first_token_seconds_bucket{backend="ns/c",le="0.05",route="ns/r",rule="x"} 0.0',
        'spillway_time_to_first_token_seconds_bucket{backend="ns/c",le="0.075",route="ns/r",rule="x"} 1.0',
        'spillway_time_to_first_token_seconds_bucket{backend="ns/c",le="+Inf",route="ns/r",rule="x"} 2.0',
        'spillway_time_to_first_token_seconds_count{backend="ns/c",route="ns/r",rule="x"} 2.0',
        'spillway_refused_total{outcome="no_rule",route="ns/r"} 1.0',
        "spillway_connections 3.0",
        "spillway_inbound_in_flight 1.0",
        'spillway_inbound_requests_total{outcome="ok"} 5.0',
    ):
        assert line in text.splitlines(), line
    assert "\nspillway_inbound_gpu " not in text


def _decision(request_id: bytes) -> Decision:
    return Decision(
        request_id, RequestType.CHAT, "m", True, 10, "r", "x", "1", 2,
        (("c", "e0", [("e0", 1.23456, (0.5, 0.25, 2.0)), ("e1", Eliminated.FULL, ())], None), ("c", "e1", [], "spilled: why")), ("upstream_reset",), "ok", 200, 0.1, 0.5,
    )  # fmt: skip


def test_the_last_decisions_are_found_by_request():
    ring = DecisionRing(2)
    for n in range(3):
        ring.add(_decision(b"id-%d" % n))
    assert ring.info() == {"records": 2, "size": 2}
    assert ring.find("id-0") is None
    assert ring.find("\ud800") is None
    found = ring.find("id-2")
    assert found is not None
    shown = json.loads(json.dumps(found.as_dict()))
    assert shown["attempts"] == [
        {
            "backend": "c",
            "endpoint": "e0",
            "diverted": None,
            "failure": "upstream_reset",
            "candidates": [
                {"endpoint": "e0", "score": 1.2346, "parts": {"aheadTokens": 0.5, "ownTokens": 0.25, "factor": 2.0}, "eliminated": None},
                {"endpoint": "e1", "score": None, "eliminated": "full"},
            ],
        },
        {"backend": "c", "endpoint": "e1", "diverted": "spilled: why", "failure": None, "candidates": []},
    ]  # fmt: skip

    assert [decision.request_id for decision in ring.all()] == [b"id-1", b"id-2"]


def test_scores_are_told_by_the_scorers_names():
    made_by = _decision(b"id")
    made_by.profile, made_by.scorers = "NodeLoad", ("GPUUtilization", "KVCache")
    ring = DecisionRing(1)
    ring.add(made_by)
    found = ring.find("id")
    assert found is not None
    shown = json.loads(json.dumps(found.as_dict()))
    assert (shown["profile"], shown["best"]) == ("NodeLoad", "highest")
    assert shown["attempts"][0]["candidates"][0]["parts"] == {"GPUUtilization": 0.5, "KVCache": 0.25}


def test_the_access_log_is_one_line_of_json_a_request(tmp_path: Path):
    path = tmp_path / "access.log"
    log = AccessLog(str(path))
    log.flush()
    log.add(1.5, "id", "m\n", "r", "x", "c", "e", 200, "ok", 0.1, 0.2, 1, 10, 5)
    log.add(2.5, "id2", "m", "r", "x", None, None, 503, "no_endpoint", None, 0.0, 1, None, 0)
    assert path.read_bytes() == b""
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        "time": 1.5, "requestId": "id", "model": "m\n", "route": "r", "rule": "x", "backend": "c", "endpoint": "e", "status": 200,
        "outcome": "ok", "ttft": 0.1, "duration": 0.2, "attempts": 1, "in": 10, "out": 5,
    }  # fmt: skip
    assert lines[1]["outcome"] == "no_endpoint"


def test_lines_that_cannot_be_kept_or_written_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(accesslog, "MAX_PENDING", 2)
    log = AccessLog("/dev/full")
    for n in range(3):
        log.add(n)
    assert log.dropped_total == 1
    log.flush()
    assert log.dropped_total == 3
    log.close()


def test_hedges_and_ejections_are_shown_by_what_became_of_them():
    stats = TrafficStats(())
    stats.backend("r", "x", "a").hedges["won"] = 3
    registry = CollectorRegistry()
    registry.register(RecoveryCollector(stats, lambda: [("a", "silent", 2, 1)]))
    labels = {"route": "r", "rule": "x", "backend": "a", "result": "won"}
    assert registry.get_sample_value("spillway_hedges_total", labels) == 3
    assert registry.get_sample_value("spillway_ejections_total", {"backend": "a", "reason": "silent"}) == 2
    assert registry.get_sample_value("spillway_ejected_endpoints", {"backend": "a", "reason": "silent"}) == 1
