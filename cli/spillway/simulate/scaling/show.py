"""From options to runs of scenes, and from results to what is printed or written."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from spillway.simulate.scaling.bars import Verdict, verdicts
from spillway.simulate.scaling.figures import Figures
from spillway.simulate.scaling.plot import write_plot
from spillway.simulate.scaling.runs import Job, Point, Result, run_jobs
from spillway.simulate.scaling.scalers import SCALERS
from spillway.simulate.scaling.scenes import HOUR, SCENES
from spillway.simulate.show import Bar
from spillway.simulate.tables import aligned

COLD_STARTS: Final = (120.0,)
NOTES: Final = """\
means over the runs, REVERSALS and OVERSHOOT the worst: REVERSALS: changes of direction; WASTE%: replica-hours beyond what the load takes at full speed;
OVERSHOOT%: most replicas against what the highest demand and the backlog then need; waits in seconds for a turn, in coupled scenes for the first token"""


def simulate_scaling(args: argparse.Namespace) -> int:
    """The command: exit code 0; 1 where a file cannot be written, or with --check a claim does not hold; 2 for an unknown name."""
    scalers, scenes = args.policy or list(SCALERS), args.scene or list(SCENES)
    for name, known in ((each, SCALERS) for each in scalers):
        if name not in known:
            print(f"spillway simulate: {name} is no policy of scaling; there are {', '.join(known)}", file=sys.stderr)
            return 2
    cold_starts = args.cold_start or COLD_STARTS
    jobs = [
        Job(scene, scaler, cold_start, args.seed + seed)
        for scene in scenes
        for cold_start in cold_starts
        for scaler in scalers
        for seed in range(args.seeds)
    ]
    results = run_jobs(jobs, args.jobs or os.cpu_count() or 1, Bar().show)
    if args.plot:
        try:
            write_plot(Path(args.plot), _panels(results, args.seed))
        except OSError as error:
            print(f"spillway simulate: {error}", file=sys.stderr)
            return 1
    judged = verdicts(results)
    if args.json:
        print(json.dumps(_as_json(results, judged), indent=1))
    else:
        _print(results, judged, args.seeds)
    return int(args.check and not all(verdict.holds for verdict in judged))


def _panels(results: Sequence[Result], seed: int) -> dict[str, dict[str, Sequence[Point]]]:
    panels: dict[str, dict[str, Sequence[Point]]] = {}
    for result in results:
        job = result.job
        if job.seed == seed:
            title = f"{job.scene}: {SCENES[job.scene].meaning}; a replica starts in {job.cold_start_seconds:g} s"
            panels.setdefault(title, {})[job.scaler] = result.curve
    return panels


def _as_json(results: Sequence[Result], judged: Sequence[Verdict]) -> dict[str, object]:
    return {
        "runs": [
            {
                "scene": result.job.scene,
                "policy": result.job.scaler,
                "cold_start_seconds": result.job.cold_start_seconds,
                "seed": result.job.seed,
                **result.figures.as_dict(),
            }
            for result in results
        ],
        "claims": [
            {"scene": each.scene, "claim": each.claim, "worst": each.worst, "most": each.most, "holds": each.holds}
            for each in judged
        ],
    }


def _print(results: Sequence[Result], judged: Sequence[Verdict], seeds: int) -> None:
    groups: dict[tuple[str, float], dict[str, list[Figures]]] = {}
    for result in results:
        job = result.job
        groups.setdefault((job.scene, job.cold_start_seconds), {}).setdefault(job.scaler, []).append(result.figures)
    for (name, cold_start), by_scaler in groups.items():
        scene = SCENES[name]
        model = "routers and engines" if scene.coupled else "fluid"
        print(f"{name}: {scene.meaning}; {scene.seconds / HOUR:g} h, a replica starts in {cold_start:g} s ({model}, {seeds} seeds)")
        print(aligned([_HEADINGS, *(_row(scaler, figures) for scaler, figures in by_scaler.items())]) + "\n")
    print(NOTES)
    if judged:
        print("\nclaims of ours, the worst run of each:")
        print(
            aligned(
                [
                    ["SCENE", "CLAIM", "WORST", "AT-MOST", ""],
                    *([v.scene, v.claim, v.worst, v.most, "holds" if v.holds else "FAILS"] for v in judged),
                ],
                left=2,
            )
        )


_HEADINGS: Final = ["POLICY", "REVERSALS", "CHANGES", "WASTE%", "OVERSHOOT%", "WAIT-P50", "P99", "REFUSED%", "HOURS", "MOST"]


def _row(scaler: str, figures: Sequence[Figures]) -> list[str]:
    def mean(name: str) -> float:
        return float(sum(getattr(each, name) for each in figures) / len(figures))

    return [
        scaler,
        str(max(each.reversals for each in figures)),
        f"{mean('changes'):.0f}",
        f"{100 * mean('waste_ratio'):.0f}",
        f"{100 * max(each.overshoot_ratio for each in figures):.0f}",
        f"{mean('wait_p50_seconds'):.1f}",
        f"{mean('wait_p99_seconds'):.1f}",
        f"{100 * mean('refused_ratio'):.1f}",
        f"{mean('replica_hours'):.1f}",
        str(max(each.most_replicas for each in figures)),
    ]
