"""`spillway simulate --scaling`: what is claimed of the decider holds, in few runs; the documented command makes many."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from spillway.__main__ import main
from spillway.simulate.command import SCENES as NAMES
from spillway.simulate.scaling.bars import BARS, verdicts
from spillway.simulate.scaling.figures import weighted_percentile
from spillway.simulate.scaling.runs import Job, run_job
from spillway.simulate.scaling.scenes import SCENES

FLUID = [name for name, scene in SCENES.items() if not scene.coupled]


def shown(capsys: pytest.CaptureFixture[str], *more: str) -> dict[str, Any]:
    assert main(["simulate", "--scaling", "--jobs", "1", "--json", *more]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_scene_can_be_asked_for():
    assert tuple(SCENES) == NAMES


@pytest.mark.parametrize("cold_start_seconds", [60.0, 120.0, 300.0])
@pytest.mark.parametrize("scene", FLUID)
def test_what_is_claimed_holds(scene: str, cold_start_seconds: float):
    scalers = ("ours", "ours-forecast") if scene == "morning" else ("ours",)
    results = [run_job(Job(scene, scaler, cold_start_seconds, seed)) for scaler in scalers for seed in range(100, 102)]
    found = verdicts(results)
    assert len(found) == sum(bar.scene == scene for bar in BARS) + (scene == "morning")
    assert [verdict for verdict in found if not verdict.holds] == []


def test_what_is_claimed_holds_request_by_request():
    found = verdicts([run_job(Job("step-coupled", "ours", 60.0, 1))])
    assert len(found) == 1
    assert [verdict for verdict in found if not verdict.holds] == []


def test_a_claim_can_fail():
    """By a scaler that goes to and fro, called ours."""
    results = [run_job(Job("steady", "ceiling", 120.0, seed)) for seed in range(2)]
    renamed = [type(each)(Job("steady", "ours", 120.0, each.job.seed), each.figures, each.curve) for each in results]
    assert not verdicts(renamed)[0].holds


def test_others_turn_where_ours_does_not(capsys: pytest.CaptureFixture[str]):
    runs = shown(capsys, "--scene", "steady", "--seeds", "2")["runs"]
    reversals = {run["policy"]: run["reversals"] for run in runs}
    assert reversals["ours"] == 0 < min(reversals[name] for name in ("ceiling", "hpa-like", "kpa-like"))


def test_the_same_seed_gives_the_same_and_in_processes_too(capsys: pytest.CaptureFixture[str]):
    options = ("--scene", "lying", "--policy", "ours", "--policy", "hpa-like", "--seeds", "1", "--seed", "3")
    alone = shown(capsys, *options)
    assert shown(capsys, *options, "--jobs", "2") == alone
    assert shown(capsys, *options, "--seed", "4") != alone


def test_a_table_says_what_was_run_and_what_holds(capsys: pytest.CaptureFixture[str]):
    options = ["simulate", "--scaling", "--scene", "edge", "--cold-start", "60", "--seeds", "1", "--jobs", "1", "--check"]
    assert main(options) == 0
    text = capsys.readouterr().out
    assert text.startswith("edge: a need at the edge of a whole number for an hour; 1 h, a replica starts in 60 s (fluid, 1 seeds)")
    assert "holds" in text
    assert main([*options, "--policy", "least-request"]) == 2
    assert "ours-forecast" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["plot.svg", "plot.html"])
def test_a_plot_has_replicas_and_waits_of_each_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str):
    shown(capsys, "--scene", "outage", "--policy", "ours", "--policy", "ceiling", "--seeds", "1", "--plot", str(tmp_path / name))
    text = (tmp_path / name).read_text()
    svg = ET.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    assert len(svg.findall("{http://www.w3.org/2000/svg}polyline")) == 1 + 2 * 2  # what is needed, and of each replicas and waits
    assert {"ours", "ceiling", "needed"} <= {node.text for node in svg.iter("{http://www.w3.org/2000/svg}text")}


def test_percentiles_go_by_weight():
    waits = [(5.0, 1.0), (0.0, 98.0), (9.0, 1.0)]
    assert [weighted_percentile(waits, share) for share in (0.5, 0.98, 0.99, 1.0)] == [0.0, 0.0, 5.0, 9.0]
