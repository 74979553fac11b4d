"""What a backend is asked for, and what a replica does -> replicas that are needed, by signal. The highest need counts.

Two sorts of signals are kept apart, because they say different things while replicas start. A *flow* (tokens asked for each second,
the share of GPU or KV cache in use) says how many replicas the present load takes. A *backlog* (requests that wait, the tokens that they
ask for) is what too few replicas have left behind: replicas that are starting will work it off, and counting it again at each tick would
start more and more of them.

Until a replica has been seen at the limit of what it does (`throughput`) there are two figures that are below it: the most that one has
done, and the share of its places and its KV cache in use. They may show that fewer replicas are enough, and never that more are needed.

What nobody measured is None and counts for nothing; where no signal is known there is no need, which is not a need of zero.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

BY_TOKENS: Final = "TokenDemand"
SPEED_SHARE: Final = 0.8  # of its full speed that a replica is meant to run at: queues grow without bound as it comes near 1
EASY_SHARE: Final = 0.4  # of its places and its KV cache that a replica of unknown speed surely serves well
DRAIN_SECONDS: Final = 300.0  # in which what waits is to be worked off


@dataclass(frozen=True, slots=True)
class Targets:
    """What one replica is to be given, as declared; None: not declared."""

    queue_depth: float | None = None  # requests that wait, a replica
    gpu_ratio: float | None = None
    kv_cache_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """A backend at one moment: sums over it, means over its ready replicas."""

    ready: int
    tokens_per_second_asked: float | None = None  # of what came in; retries are asked once
    tokens_per_second_replica: float | None = None  # as learned, at full speed
    tokens_per_second_shown: float | None = None  # the most that one has done, busy or not
    occupancy: float | None = None  # share of the places, or of the KV cache, in use: the higher one
    tokens_waiting: float | None = None  # of requests that were neither refused nor begun, wherever they wait
    waiting: int | None = None
    held: int = 0  # requests that wait for a first replica
    gpu_ratio: float | None = None
    kv_cache_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Need:
    """Replicas, not rounded; each with the signal that says so."""

    flow: float | None = None
    flow_signal: str = ""
    backlog: float | None = None

    @property
    def known(self) -> bool:
        """Whether anything was measured."""
        return self.flow is not None or self.backlog is not None


def need(observed: Observed, targets: Targets) -> Need:
    """How many replicas each signal asks for, and the highest."""
    flows = [
        (BY_TOKENS, _token_demand(observed)),
        ("GPUUtilization", _share(observed.ready, observed.gpu_ratio, targets.gpu_ratio)),
        ("KVCache", _share(observed.ready, observed.kv_cache_ratio, targets.kv_cache_ratio)),
    ]
    signal, flow = _highest(flows)
    waiting = None if observed.waiting is None else float(observed.waiting)
    backlogs = [_over(waiting, targets.queue_depth), 1.0 if _missed(observed) else None]
    return Need(flow=flow, flow_signal=signal, backlog=max((each for each in backlogs if each is not None), default=None))


def _missed(observed: Observed) -> bool:
    """Whether there is none, and one was asked for: by requests that wait, or by some that went elsewhere instead."""
    return bool(observed.held or (not observed.ready and observed.tokens_per_second_asked))


def _token_demand(observed: Observed) -> float | None:
    """For what comes in with room to spare, or for what comes in and waits, worked off in `DRAIN_SECONDS`, at full speed."""
    asked, each = observed.tokens_per_second_asked, observed.tokens_per_second_replica
    if asked is None:
        return None
    if not asked and not observed.tokens_waiting:
        return 0.0
    if each is None:
        enough = [_over(asked, observed.tokens_per_second_shown), _share(observed.ready, observed.occupancy, EASY_SHARE)]
        known = [each for each in enough if each is not None]
        return min(*known, float(observed.ready)) if known and observed.ready else None
    return _over(max(asked / SPEED_SHARE, asked + (observed.tokens_waiting or 0.0) / DRAIN_SECONDS), each)


def _over(asked: float | None, each: float | None) -> float | None:
    return None if asked is None or each is None or each <= 0 else asked / each


def _share(ready: int, ratio: float | None, target: float | None) -> float | None:
    each = _over(ratio, target)
    return None if each is None or not ready else ready * each


def _highest(needs: Iterable[tuple[str, float | None]]) -> tuple[str, float | None]:
    known = [(value, signal) for signal, value in needs if value is not None]
    if not known:
        return "", None
    value, signal = max(known)
    return signal, value
