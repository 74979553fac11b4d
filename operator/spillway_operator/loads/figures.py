"""Values that the load store hands out, and the arithmetic between them.

An unknown figure is None and stays None through a sum or a mean of nothing: it never becomes a zero. Queue depth is what
waits anywhere before a GPU: in the inbound listener and, where the engine says so, in the engine's own queue.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from spillway_wire.loads import TTFT_BUCKETS_SECONDS, Load

_QUEUE_MIN: Final = 4
_QUEUE_SHARE: Final = 0.25


@dataclass(frozen=True, slots=True)
class EndpointLoad:
    """The last load of one endpoint; `stale` means three report intervals old: a hint no longer."""

    load: Load
    age_seconds: float
    stale: bool
    runs: int | None = None  # what its engine runs at once where that is less than the declared limit; None: nobody has seen


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """Sums over the fresh endpoints of one backend. `known` endpoints reported lately, out of `total` declared ones."""

    total: int = 0
    known: int = 0
    in_flight: int = 0
    queued: int = 0
    engine_waiting: int = 0
    running: int = 0
    capacity: int = 0  # what the fresh endpoints can run at once: the declared limits, or what engines have shown
    gpu_ratio: float | None = None
    kv_cache_ratio: float | None = None
    tokens_per_second: float | None = None
    waiting_tokens: int = 0  # of prompts without a first token; as far as listeners say
    saturated: int = 0  # endpoints that have all they can do: requests wait there, or as many run as may

    @property
    def queue_depth(self) -> int:
        """Requests that wait: before the engines and inside them."""
        return self.queued + self.engine_waiting


@dataclass(frozen=True, slots=True)
class TrafficRates:
    """Finished requests over the window, per second; `ttft_p95_seconds` is None without a sample."""

    requests_per_second: float = 0.0
    error_ratio: float = 0.0
    input_tokens_per_second: float = 0.0
    output_tokens_per_second: float = 0.0
    ttft_p95_seconds: float | None = None
    requests: int = 0  # in the window, for weighing
    attempts: int = 0  # requests, and attempts that failed here and were made good elsewhere
    failed_ratio: float = 0.0  # of the attempts


@dataclass(frozen=True, slots=True)
class ClusterDemand:
    """What all fresh routers together are asked for at a cluster."""

    in_flight: int = 0
    held: int = 0  # requests that wait for its first endpoint
    held_tokens: int = 0
    arrived_tokens_per_second: float = 0.0  # over the window; retries are asked once
    partial: bool = False  # a router that had requests there is connected and has fallen silent: its share is unknown


@dataclass(frozen=True, slots=True)
class NodeProblem:
    """One proxy's reason why it can send nothing to a cluster."""

    node: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class NodeDiversion:
    """One proxy's word that it sends requests past a priority of a rule, and why."""

    node: str
    rule: str
    priority: int
    cause: str
    message: str


def runs_at_once(known: int | None, last: Load | None, load: Load) -> int | None:
    """What an engine runs at once, by its load and the one before. A declared limit of 256 says little of one whose batch is 16.

    It shows while requests wait in the engine: in two loads in a row, and at least a quarter of those that run, for a few may stand between
    two of its steps. One that has just been emptied runs less than it can, so what is known falls by a tenth at a time at most; an engine
    that runs more has disproved it.
    """
    running = load.engine_running or 0
    if known is not None and running > known:
        known = None
    if last is None or not running or not _queues(last) or not _queues(load):
        return known
    return running if known is None else max(running, int(known * 0.9))


def _queues(load: Load) -> bool:
    return (load.engine_waiting or 0) >= max(_QUEUE_MIN, _QUEUE_SHARE * (load.engine_running or 0))


def sum_loads(loads: Iterable[EndpointLoad | None]) -> BackendLoad:
    """The sums over endpoints; None (never reported) and stale ones count in `total` only. An engine that is down adds no capacity."""
    total = known = in_flight = queued = waiting = running = capacity = waiting_tokens = saturated = 0
    gpu: list[float] = []
    cache: list[float] = []
    tokens: list[float] = []
    for entry in loads:
        total += 1
        if entry is None or entry.stale:
            continue
        load = entry.load
        known += 1
        in_flight += load.in_flight
        queued += load.queued
        waiting += load.engine_waiting or 0
        running += load.in_flight if load.engine_running is None else load.engine_running
        waiting_tokens += load.waiting_tokens or 0
        if load.engine_up and not load.draining:
            runs = load.max_concurrency if entry.runs is None else min(entry.runs, load.max_concurrency)
            capacity += runs
            saturated += load.queued + (load.engine_waiting or 0) > 0 or load.in_flight >= runs > 0
        for ratio, into in ((load.gpu_ratio, gpu), (load.kv_cache_ratio, cache), (load.tokens_per_second, tokens)):
            if ratio is not None:
                into.append(ratio)
    return BackendLoad(
        total=total,
        known=known,
        in_flight=in_flight,
        queued=queued,
        engine_waiting=waiting,
        running=running,
        capacity=capacity,
        gpu_ratio=sum(gpu) / len(gpu) if gpu else None,
        kv_cache_ratio=sum(cache) / len(cache) if cache else None,
        tokens_per_second=sum(tokens) if tokens else None,
        waiting_tokens=waiting_tokens,
        saturated=saturated,
    )


def ttft_quantile(counts: Sequence[int], quantile: float) -> float | None:
    """Seconds below which `quantile` of the samples lie, linear inside a bucket; None without samples.

    Samples beyond the last bound are known only to be beyond it, so the answer then is that bound, a lower estimate.
    """
    total = sum(counts)
    if not total:
        return None
    rank = quantile * total
    seen = 0
    lower = 0.0
    for bound, count in zip(TTFT_BUCKETS_SECONDS, counts, strict=False):
        if count and seen + count >= rank:
            return lower + (bound - lower) * max(0.0, rank - seen) / count
        seen += count
        lower = bound
    return TTFT_BUCKETS_SECONDS[-1]
