"""From options to an experiment, and from results to what is printed or written."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from spillway.simulate.engine import EngineSpec
from spillway.simulate.experiment import Experiment, Job, Result, run_jobs
from spillway.simulate.faults import MEANING, Fault
from spillway.simulate.plot import write_plot
from spillway.simulate.policies import POLICIES, UnknownPolicy, find
from spillway.simulate.tables import NOTES, summary, table
from spillway.simulate.traffic import PLAIN, SHARED, BadTrace, read_trace, write_trace
from spillway.simulate.world import Setting

BASELINE = "least-request"
_WIDTH = 30


def simulate(args: argparse.Namespace) -> int:
    """The command."""
    policies = args.policy or list(POLICIES)
    try:
        for name in policies:
            find(name)
        experiment = _experiment(args)
        if args.emit_trace:
            write_trace(Path(args.emit_trace), experiment.arrivals(args.seed))
    except UnknownPolicy as error:
        print(f"spillway simulate: {error}", file=sys.stderr)
        return 2
    except (BadTrace, OSError) as error:
        print(f"spillway simulate: {error}", file=sys.stderr)
        return 1
    scenes = _scenes(experiment, args.fault)
    jobs = [
        Job(scene, policy, args.seed + seed) for scene in range(len(scenes)) for policy in policies for seed in range(args.seeds)
    ]
    processes = args.jobs or os.cpu_count() or 1
    results = run_jobs([scene for _, scene in scenes], jobs, processes, Bar().show)
    by_scene = {
        name: {policy: [r for r in results if r.job.scene == index and r.job.policy == policy] for policy in policies}
        for index, (name, _) in enumerate(scenes)
    }
    if args.plot:
        try:
            write_plot(Path(args.plot), by_scene)
        except OSError as error:
            print(f"spillway simulate: {error}", file=sys.stderr)
            return 1
    if args.json:
        print(json.dumps(_as_json(experiment, by_scene), indent=1))
    else:
        _print(experiment, by_scene, args)
    return 0


def _experiment(args: argparse.Namespace) -> Experiment:
    endpoints = args.endpoints
    slow = endpoints // 8 if args.slow_endpoints is None else min(args.slow_endpoints, endpoints)
    setting = Setting(
        routers=args.routers,
        endpoints=endpoints,
        slow_endpoints=slow,
        engine=EngineSpec(max_running=args.max_running, kv_tokens=args.kv_tokens),
        report_seconds=args.report_interval,
    )
    traffic = replace(SHARED, prefixes=args.prefixes) if args.shared_prefix else PLAIN
    experiment = Experiment(
        setting, traffic, load=args.load or 0.8, seconds=args.seconds, warmup_seconds=args.warmup, slo_seconds=args.slo_ttft
    )
    return experiment.on(read_trace(Path(args.trace)), args.load) if args.trace else experiment


def _scenes(experiment: Experiment, fault: str | None) -> list[tuple[str, Experiment]]:
    if fault is None:
        return [("", experiment)]
    faults = list(Fault) if fault == "all" else [Fault(fault)]
    return [("healthy", experiment), *((name.value, experiment.with_fault(name)) for name in faults)]


def _as_json(experiment: Experiment, by_scene: dict[str, dict[str, list[Result]]]) -> dict[str, object]:
    setting = experiment.setting
    return {
        "routers": setting.routers,
        "endpoints": setting.endpoints,
        "slow_endpoints": setting.slow_endpoints,
        "report_interval_seconds": setting.report_seconds,
        "requests_per_second": experiment.rate,
        "load": None if experiment.trace else experiment.load,
        "runs": [
            {
                "fault": None if scene in {"", "healthy"} else scene,
                "policy": policy,
                "seed": result.job.seed,
                **result.figures.as_dict(),
            }
            for scene, by_policy in by_scene.items()
            for policy, results in by_policy.items()
            for result in results
        ],
    }


def _print(experiment: Experiment, by_scene: dict[str, dict[str, list[Result]]], args: argparse.Namespace) -> None:
    setting = experiment.setting
    slow = f" ({setting.slow_endpoints} at half speed)" if setting.slow_endpoints else ""
    what = "trace" if experiment.trace else f"load {experiment.load:g}"
    print(
        f"{setting.routers} routers, {setting.endpoints} endpoints{slow}, {what}, {experiment.rate:.1f} requests/s, "
        f"{args.seeds} seed{'s' * (args.seeds != 1)} of {experiment.seconds:g} s\n"
    )
    for scene, by_policy in by_scene.items():
        rows = [(_short(policy), summary(results)) for policy, results in by_policy.items()]
        if scene:
            print(f"{scene}: {MEANING[Fault(scene)]}" if scene != "healthy" else scene)
        print(table(rows, BASELINE if len(rows) > 1 else None) + "\n")
    print(NOTES.format(slo=experiment.slo_seconds))


def _short(policy: str) -> str:
    return policy.rpartition(":")[2]


class Bar:
    """A progress bar on standard error, where that is a terminal."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._started = time.monotonic()

    def show(self, share: float) -> None:
        """Draws it; clears it at the end."""
        if not self._tty:
            return
        if share >= 1.0:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            return
        done = round(share * _WIDTH)
        left = (time.monotonic() - self._started) * (1.0 - share) / share if share > 0.0 else 0.0
        print(
            f"\r[{'#' * done}{'.' * (_WIDTH - done)}] {share:4.0%}  about {left:.0f} s left \x1b[K",
            end="",
            file=sys.stderr,
            flush=True,
        )
