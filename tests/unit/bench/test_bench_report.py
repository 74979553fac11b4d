"""The benchmark's tables: which rounds count, what is met, and what is said of a peer that was not there."""

from __future__ import annotations

from bench.report import BARS, COLUMNS, Bar, Results, added_p50, bars, cpu_per_request, figures, rate


def cell(rps: float, *, cpu: float = 1.0, other: float = 0.0, failed: int = 0) -> dict[str, float]:
    return {"rps": rps, "requests": rps, "cpu": cpu, "other": other, "errors": 0, "non2xx": failed}


def results(**rates: float) -> Results:
    found = Results()
    for peer, rps in rates.items():
        found.add(peer, "rate", cell(rps))
    return found


def test_the_least_disturbed_rounds_count() -> None:
    found = Results()
    for rps, other in ((100, 0.9), (200, 0.1), (300, 0.0), (400, 0.2), (9000, 0.8)):
        found.add("ours", "rate", cell(rps, other=other))
    assert rate(found, "ours") == 300


def test_cpu_is_counted_per_good_answer() -> None:
    found = Results()
    found.add("ours", "rate", cell(1000, cpu=0.5, failed=500))
    assert cpu_per_request(found, "ours") == 1000.0
    assert found.bad("ours") == 500


def test_added_latency_is_over_direct() -> None:
    found = Results()
    found.add("direct", "low", {"lat_us": [100, 200, 300, 400]})  # type: ignore[dict-item]
    found.add("ours", "low", {"lat_us": [350, 500, 900, 950]})  # type: ignore[dict-item]
    assert added_p50(found, "ours") == 250
    assert added_p50(found, "direct") is None


def test_a_bar_says_met_or_by_how_much_missed() -> None:
    bar = Bar("requests/s", rate, 2, "envoy", at_least=True)
    assert bar.judge(results(ours=300, envoy=100), {})[1:] == ("3.00x", "met")
    assert bar.judge(results(ours=200, envoy=100), {})[1:] == ("2.00x", "met")
    assert bar.judge(results(ours=100, envoy=100), {})[1:] == ("1.00x", "missed by 50 %")
    most = Bar("CPU per request", cpu_per_request, 1.5, "nginx")
    assert most.judge(results(ours=100, nginx=100), {})[2] == "met"
    assert most.judge(results(ours=100, nginx=300), {})[2] == "missed by 100 %"


def test_an_absent_peer_is_named_with_its_reason() -> None:
    text = bars(results(ours=300), {"envoy": "no network"})
    assert "not measured (no network)" in text
    assert "not measured (no figure of nginx)" in text
    assert "Left out: envoy (no network)." in figures(results(ours=300), COLUMNS, ["ours"], "proxy", {"envoy": "no network"})


def test_every_bar_names_a_peer_that_is_measured() -> None:
    from bench.peers import PEERS

    assert {bar.peer for bar in BARS if bar.peer} <= set(PEERS)
