"""`spillway simulate` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from spillway.__main__ import main
from spillway.simulate.faults import MEANING, Fault

SMALL = ("simulate", "--routers", "2", "--endpoints", "4", "--seconds", "4", "--warmup", "1", "--seeds", "1", "--jobs", "1")


def figures(capsys: pytest.CaptureFixture[str], *more: str) -> list[dict[str, Any]]:
    assert main([*SMALL, "--json", *more]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    runs: list[dict[str, Any]] = shown["runs"]
    return runs


def test_a_table_has_a_row_for_each_policy_and_says_what_was_run(capsys: pytest.CaptureFixture[str]):
    assert main([*SMALL, "--policy", "ours", "--policy", "least-request"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("2 routers, 4 endpoints, load 0.8, ")
    rows = {line.split()[0]: line.split() for line in shown.splitlines() if line}
    assert rows["POLICY"][1:4] == ["TTFT-P50", "P90", "P99"]
    assert rows["least-request"][-1] == "1.00"
    assert len(rows["ours"]) == len(rows["POLICY"])


def test_the_same_seed_prints_the_same_and_in_processes_too(capsys: pytest.CaptureFixture[str]):
    alone = figures(capsys, "--policy", "ours", "--seeds", "2", "--seed", "3")
    assert [run["seed"] for run in alone] == [3, 4]
    assert figures(capsys, "--policy", "ours", "--seeds", "2", "--seed", "3", "--jobs", "2") == alone
    assert figures(capsys, "--policy", "ours", "--seeds", "2", "--seed", "5") != alone


def test_each_fault_is_run_beside_the_healthy_scene(capsys: pytest.CaptureFixture[str]):
    runs = figures(capsys, "--policy", "ours", "--fault", "all")
    assert [run["fault"] for run in runs] == [None, *Fault]
    assert [run["faulty_share"] is None for run in runs] == [True, *[False] * len(Fault)]
    assert main([*SMALL, "--policy", "p2c", "--fault", "slow"]) == 0
    assert f"slow: {MEANING[Fault.SLOW]}" in capsys.readouterr().out


def test_a_trace_that_was_written_gives_the_figures_of_the_traffic_that_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trace = str(tmp_path / "trace.csv")
    (made,) = figures(capsys, "--policy", "p2c", "--shared-prefix", "--emit-trace", trace)
    assert made["hit_ratio"] is not None
    (read,) = figures(capsys, "--policy", "p2c", "--trace", trace)
    assert read["requests"] == pytest.approx(made["requests"], abs=3)  # its time begins at its first request
    assert read["ttft_p50_seconds"] == pytest.approx(made["ttft_p50_seconds"], rel=0.2)


def test_a_trace_is_as_dense_as_it_is_unless_a_load_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    trace = str(tmp_path / "trace.csv")
    figures(capsys, "--policy", "p2c", "--emit-trace", trace)
    (light,) = figures(capsys, "--policy", "p2c", "--trace", trace, "--load", "0.1", "--warmup", "0")
    (heavy,) = figures(capsys, "--policy", "p2c", "--trace", trace, "--load", "2", "--warmup", "0")
    assert light["requests"] == heavy["requests"]
    assert light["ttft_p90_seconds"] < heavy["ttft_p90_seconds"]


@pytest.mark.parametrize("name", ["plot.svg", "plot.html"])
def test_a_plot_has_a_line_for_each_policy_and_loads_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
    figures(capsys, "--policy", "ours", "--policy", "random", "--fault", "nan", "--plot", str(tmp_path / name))
    text = (tmp_path / name).read_text()
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert len(svg.findall("{http://www.w3.org/2000/svg}polyline")) == 2 * 2
    assert {"ours", "random"} <= {node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--policy", "best"), 2, "best is no policy; there are round-robin"),
        (("--trace", "none.csv"), 1, "none.csv"),
        (("--emit-trace", "/nowhere/t.csv", "--policy", "p2c"), 1, "/nowhere/t.csv"),
        (("--plot", "/nowhere/t.svg", "--policy", "p2c"), 1, "/nowhere/t.svg"),
    ],
)
def test_what_cannot_be_done_is_said(capsys: pytest.CaptureFixture[str], more: tuple[str, ...], code: int, said: str):
    assert main([*SMALL, *more]) == code
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "more", [("--plot", "t.gif"), ("--load", "0"), ("--endpoints", "0"), ("--fault", "bad"), ("--warmup", "-1")]
)
def test_a_wrong_option_ends_with_2(capsys: pytest.CaptureFixture[str], more: tuple[str, str]):
    with pytest.raises(SystemExit) as ended:
        main([*SMALL, *more])
    assert ended.value.code == 2
    assert more[0] in capsys.readouterr().err
