"""Figures of a run: of the requests that came after the warm-up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from spillway.simulate.world import SAMPLE_SECONDS, Run

MAX_LAG_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds and shares. `None`: there was nothing to measure."""

    requests: int
    ttft_p50_seconds: float
    ttft_p90_seconds: float
    ttft_p99_seconds: float
    e2e_p99_seconds: float
    goodput_ratio: float  # of all requests, those with a first token in time and an end
    failed_ratio: float
    hit_ratio: float | None  # of requests with a prefix
    worst_share: float  # the busiest endpoint's part of the traffic, times endpoints: 1 is its fair share
    faulty_share: float | None  # of the attempts from three seconds after the fault on, those that went to the faulty endpoint
    autocorrelation: float  # highest, of an endpoint's waiting tokens against the mean of all, at lags past the report interval
    declined_ratio: float  # a request that was declined twice counts twice
    preempted: int

    def as_dict(self) -> dict[str, float | int | None]:
        """The figures by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def percentile(ordered: Sequence[float], share: float) -> float:
    """Of a sorted sequence, by the nearest rank; NaN of an empty one."""
    if not ordered:
        return float("nan")
    return ordered[max(0, math.ceil(share * len(ordered) - 1e-9) - 1)]


def measure(
    run: Run, *, warmup_seconds: float, slo_seconds: float, interval_seconds: float, fault_at_seconds: float | None
) -> Figures:
    """The figures of one run. `interval_seconds` is that of the reports; lags from there on to `MAX_LAG_SECONDS` are looked at."""
    counted = [request for request in run.requests if request.arrived_at >= warmup_seconds]
    done = [request for request in counted if not request.failed]
    ttft = sorted(request.first_at - request.arrived_at for request in done)
    e2e = sorted(request.ended_at - request.arrived_at for request in done)
    met = sum(1 for seconds in ttft if seconds <= slo_seconds)
    shared = [request for request in done if request.prefix_tokens]
    at = Counter(request.endpoint for request in counted if request.endpoint >= 0)
    faulty = None
    if fault_at_seconds is not None:
        late = [(request.endpoint, *request.tried[:1]) for request in run.requests if request.arrived_at >= fault_at_seconds + 3.0]
        attempts = [index for places in late for index in dict.fromkeys(places)]
        faulty = attempts.count(run.faulty) / max(1, len(attempts))
    total = max(1, len(counted))
    return Figures(
        requests=len(counted),
        ttft_p50_seconds=percentile(ttft, 0.50),
        ttft_p90_seconds=percentile(ttft, 0.90),
        ttft_p99_seconds=percentile(ttft, 0.99),
        e2e_p99_seconds=percentile(e2e, 0.99),
        goodput_ratio=met / total,
        failed_ratio=(len(counted) - len(done)) / total,
        hit_ratio=sum(request.hit for request in shared) / len(shared) if shared else None,
        worst_share=max(at.values(), default=0) * run.endpoints / total,
        faulty_share=faulty,
        autocorrelation=autocorrelation(run.waiting, round(warmup_seconds / SAMPLE_SECONDS), interval_seconds),
        declined_ratio=sum(request.declined for request in counted) / total,
        preempted=run.preempted,
    )


def autocorrelation(waiting: Sequence[Sequence[int]], skip: int, interval_seconds: float) -> float:
    """The highest mean autocorrelation at lags past the interval, of each endpoint's excess over the mean of all at that time.

    A queue remembers for as long as it takes to empty, so it is high at short lags with any policy. A limit cycle shows as a second
    rise: endpoints that take turns.
    """
    length = min((len(samples) for samples in waiting), default=0) - skip
    count = len(waiting)
    if length < 20 or count < 2:
        return 0.0
    means = [sum(samples[skip + step] for samples in waiting) / count for step in range(length)]
    excess: list[list[float]] = []
    for samples in waiting:
        own = [samples[skip + step] - means[step] for step in range(length)]
        mean = sum(own) / length
        excess.append([value - mean for value in own])
    variances = [sum(value * value for value in own) for own in excess]
    first = max(1, round(interval_seconds / SAMPLE_SECONDS) + 1)
    last = min(length // 2, round(MAX_LAG_SECONDS / SAMPLE_SECONDS))
    highest = -1.0
    for lag in range(first, last + 1, max(1, first // 4)):
        total, seen = 0.0, 0
        for own, variance in zip(excess, variances, strict=True):
            if variance > 0.0:
                total += sum(map(float.__mul__, own, own[lag:])) / variance
                seen += 1
        if seen:
            highest = max(highest, total / seen)
    return highest
