"""An experiment: the same traffic through several policies, each seed a run of its own, several at a time."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from spillway.simulate.faults import Fault
from spillway.simulate.measure import Figures, measure, percentile
from spillway.simulate.policies import find
from spillway.simulate.traffic import PLAIN, Arrival, Traffic
from spillway.simulate.world import USUAL_SETTING, Setting, World

SLOWEST_WORD_SECONDS: Final = 1.0  # reports that ride on replies have no interval; the engine's own figures in them do
CURVE_SHARES: Final = tuple(1.0 - 10.0 ** (-step / 20.0) for step in range(1, 61))  # evenly spaced in nines, up to 99.9 %


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is the same for all runs. With a `trace` its arrivals are taken as they are, in place of made ones."""

    setting: Setting = USUAL_SETTING
    traffic: Traffic = PLAIN
    trace: tuple[Arrival, ...] = ()
    load: float = 0.8
    seconds: float = 60.0  # measured
    warmup_seconds: float = 10.0
    slo_seconds: float = 2.0

    @property
    def rate(self) -> float:
        """Requests a second."""
        if self.trace:
            return len(self.trace) / max(1e-9, self.trace[-1].at_seconds)
        return self.load * self.setting.capacity(self.traffic.prompt_tokens, self.traffic.output.mean)

    @property
    def until_seconds(self) -> float:
        """When the last request comes."""
        return self.trace[-1].at_seconds if self.trace else self.warmup_seconds + self.seconds

    def arrivals(self, seed: int) -> Iterable[Arrival]:
        """The traffic of a seed."""
        return self.trace or self.traffic.arrivals(self.rate, self.until_seconds, seed)

    def on(self, trace: Sequence[Arrival], load: float | None) -> Experiment:
        """The same on recorded requests; with a load their time is stretched or shortened to be that."""
        end = trace[-1].at_seconds
        if load is not None:
            count = len(trace)
            most = self.setting.capacity(sum(a.input_tokens for a in trace) / count, sum(a.output_tokens for a in trace) / count)
            scale = count / (load * most) / max(1e-9, end)
            trace = [arrival._replace(at_seconds=arrival.at_seconds * scale) for arrival in trace]
            end *= scale
        return replace(self, trace=tuple(trace), seconds=max(0.0, end - self.warmup_seconds))

    def with_fault(self, fault: Fault | None) -> Experiment:
        """The same with a fault from the end of the warm-up on."""
        return replace(self, setting=replace(self.setting, fault=fault, fault_at_seconds=self.warmup_seconds))


@dataclass(frozen=True, slots=True)
class Job:
    """One run: of the scene with that index."""

    scene: int
    policy: str
    seed: int


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it. `curve` has the time to first token at `CURVE_SHARES` of the requests."""

    job: Job
    figures: Figures
    curve: tuple[float, ...]


def run_job(experiment: Experiment, job: Job, progress: Callable[[float], None] | None = None) -> Result:
    """Runs it here. `progress` gets a share of 1."""
    world = World(experiment.setting, find(job.policy), job.seed)
    until = experiment.until_seconds
    told = None if progress is None else lambda now: progress(min(1.0, now / until))
    run = world.run(experiment.arrivals(job.seed), told)
    setting = experiment.setting
    figures = measure(
        run,
        warmup_seconds=experiment.warmup_seconds,
        slo_seconds=experiment.slo_seconds,
        interval_seconds=max(setting.report_seconds, SLOWEST_WORD_SECONDS),
        fault_at_seconds=setting.fault_at_seconds if setting.fault else None,
    )
    ttft = sorted(r.first_at - r.arrived_at for r in run.requests if r.arrived_at >= experiment.warmup_seconds and not r.failed)
    return Result(job, figures, tuple(percentile(ttft, share) for share in CURVE_SHARES))


def run_jobs(scenes: Sequence[Experiment], jobs: Sequence[Job], processes: int, progress: Callable[[float], None]) -> list[Result]:
    """Runs all, in `processes` processes; results in the order of the jobs. `progress` gets a share of 1."""
    results: list[Result] = []
    if processes <= 1 or len(jobs) == 1:
        for index, job in enumerate(jobs):
            results.append(run_job(scenes[job.scene], job, lambda share, done=index: progress((done + share) / len(jobs))))  # type: ignore[misc]
        progress(1.0)
        return results
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(processes, len(jobs)), initializer=_prepare, initargs=(tuple(scenes),)) as pool:
        for result in pool.imap(_run_prepared, jobs):
            results.append(result)
            progress(len(results) / len(jobs))
    return results


_scenes: tuple[Experiment, ...] = ()  # of a worker process: a long trace is sent to it once, not with each job


def _prepare(scenes: tuple[Experiment, ...]) -> None:
    global _scenes  # noqa: PLW0603 - the worker's own, set once before its first job
    _scenes = scenes


def _run_prepared(job: Job) -> Result:
    return run_job(_scenes[job.scene], job)
