"""Figures of a run."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from spillway.simulate.scaling.scenes import HOUR, Scene
from spillway.simulate.scaling.watch import TICK_SECONDS, Sample, need_of
from spillway_operator.scaling.needs import DRAIN_SECONDS

Waits = Sequence[tuple[float, float]]  # seconds, and how much of the demand had them


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run."""

    reversals: int  # changes of direction, up or down
    changes: int
    waste_ratio: float  # replica-hours beyond what the demand takes at full speed, against that
    overshoot_ratio: (
        float  # most replicas against what the highest demand needs, and the backlog of then in five minutes; 0: no more
    )
    lowered_blind: int  # replicas that were taken away while nothing was measured
    wait_p50_seconds: float
    wait_p99_seconds: float
    refused_ratio: float  # of the requests, where those are simulated: every place was taken
    replica_hours: float
    most_replicas: int

    def as_dict(self) -> dict[str, float | int]:
        """The figures by name."""
        return asdict(self)


def measure(scene: Scene, samples: Sequence[Sample], waits: Waits, refused_ratio: float = 0.0) -> Figures:
    """The figures of one run."""
    asked = [sample.asked_for for sample in samples]
    steps = [after - before for before, after in itertools.pairwise(asked) if after != before]
    ticks = TICK_SECONDS / HOUR
    hours = sum(asked) * ticks
    used = sum(sample.demand for sample in samples) * ticks
    blind = [s.asked_for for s in samples if scene.blind is not None and scene.blind[0] <= s.at < scene.blind[1] + TICK_SECONDS]
    return Figures(
        reversals=sum((one > 0) != (other > 0) for one, other in itertools.pairwise(steps)),
        changes=len(steps),
        waste_ratio=hours / used - 1.0,
        overshoot_ratio=_overshoot(samples),
        lowered_blind=sum(max(0, before - after) for before, after in itertools.pairwise(blind)),
        wait_p50_seconds=weighted_percentile(waits, 0.50),
        wait_p99_seconds=weighted_percentile(waits, 0.99),
        refused_ratio=refused_ratio,
        replica_hours=hours,
        most_replicas=max(asked),
    )


def _overshoot(samples: Sequence[Sample]) -> float:
    """The highest of asked for against needed; needed is what the demand's mean and the backlog of that moment take."""
    highest = max(need_of(sample.mean) for sample in samples)
    backlog = most = 0.0
    for sample in samples:
        backlog = max(0.0, backlog + (sample.demand - sample.ready) * TICK_SECONDS)
        most = max(most, backlog)
    return max(0.0, max(sample.asked_for for sample in samples) / (highest + most / DRAIN_SECONDS) - 1.0)


def weighted_percentile(waits: Waits, share: float) -> float:
    """The wait that such a share of the demand stays within."""
    ordered = sorted(waits)
    wanted = share * sum(weight for _, weight in ordered)
    seen = 0.0
    for seconds, weight in ordered:
        seen += weight
        if seen >= wanted - 1e-9:
            return seconds
    return ordered[-1][0] if ordered else 0.0
