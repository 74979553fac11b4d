"""Runs of scenes by scalers, several at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spillway.simulate.scaling.coupled import run_coupled
from spillway.simulate.scaling.figures import Figures, measure
from spillway.simulate.scaling.fluid import Fluid
from spillway.simulate.scaling.scalers import SCALERS
from spillway.simulate.scaling.scenes import SCENES
from spillway.simulate.scaling.watch import Watch

POINTS = 400  # of a curve


@dataclass(frozen=True, slots=True)
class Job:
    """One run."""

    scene: str
    scaler: str
    cold_start_seconds: float
    seed: int


@dataclass(frozen=True, slots=True)
class Point:
    """A moment of a run, for its plot. `wait_seconds` is that of what came then."""

    at_seconds: float
    mean: float  # of the demand
    asked_for: int
    ready: int
    wait_seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run."""

    job: Job
    figures: Figures
    curve: tuple[Point, ...]


def run_job(job: Job) -> Result:
    """Runs it here."""
    scene = SCENES[job.scene]
    watch = Watch(scene, SCALERS[job.scaler], job.seed)
    if scene.coupled:
        waits, wait_of_tick, refused = run_coupled(watch, job.cold_start_seconds, job.seed)
    else:
        waits, refused = Fluid(watch, job.cold_start_seconds).run(), 0.0
        wait_of_tick = [seconds for seconds, _ in waits]
    every = max(1, len(watch.samples) // POINTS)
    curve = tuple(
        Point(s.at, s.mean, s.asked_for, s.ready, wait) for s, wait in list(zip(watch.samples, wait_of_tick, strict=False))[::every]
    )
    return Result(job, measure(scene, watch.samples, waits, refused), curve)


def run_jobs(jobs: Sequence[Job], processes: int, progress: Callable[[float], None]) -> list[Result]:
    """Runs all, in `processes` processes; results in the order of the jobs. `progress` gets a share of 1."""
    results: list[Result] = []
    if processes <= 1 or len(jobs) == 1:
        for job in jobs:
            results.append(run_job(job))
            progress(len(results) / len(jobs))
        return results
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs))) as pool:
        for result in pool.imap(run_job, jobs):
            results.append(result)
            progress(len(results) / len(jobs))
    return results
