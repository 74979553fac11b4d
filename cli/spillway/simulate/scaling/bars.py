"""What is claimed of the operator's decider, and whether it holds in these runs: in the worst of them, not in the mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from spillway.simulate.scaling.figures import Figures
from spillway.simulate.scaling.runs import Result

OURS: Final = "ours"
FORECAST: Final = "ours-forecast"


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure of a scene, and what it may be at most."""

    scene: str
    claim: str
    figure: Callable[[Figures], float]
    most: float
    shown: str = "{:.0f}"


def _reversals(figures: Figures) -> float:
    return figures.reversals


def _overshoot(figures: Figures) -> float:
    return figures.overshoot_ratio


BARS: Final = (
    Bar("steady", "reversals in an hour", _reversals, 0),
    Bar("steady", "waste", lambda figures: figures.waste_ratio, 0.6, "{:.0%}"),
    Bar("edge", "reversals in an hour", _reversals, 0),
    Bar("step", "reversals", _reversals, 1),
    Bar("step", "overshoot, drain apart", _overshoot, 0.1, "{:.0%}"),
    Bar("sine", "reversals in four periods", _reversals, 8),
    Bar("outage", "replicas taken away while nothing is measured", lambda figures: figures.lowered_blind, 0),
    Bar("outage", "overshoot, drain apart", _overshoot, 0.1, "{:.0%}"),
    Bar("step-coupled", "reversals", _reversals, 1),
    Bar("first-coupled", "reversals", _reversals, 1),
)
FORECAST_SHARE: Final = 0.5


@dataclass(frozen=True, slots=True)
class Verdict:
    """A claim, and the worst of the runs."""

    scene: str
    claim: str
    worst: str
    most: str
    holds: bool


def verdicts(results: Sequence[Result]) -> list[Verdict]:
    """All claims that these runs can show."""
    found = []
    for bar in BARS:
        values = [bar.figure(each.figures) for each in results if (each.job.scene, each.job.scaler) == (bar.scene, OURS)]
        if values:
            worst = max(values)
            found.append(Verdict(bar.scene, bar.claim, bar.shown.format(worst), bar.shown.format(bar.most), worst <= bar.most))
    return found + _with_forecast(results)


def _with_forecast(results: Sequence[Result]) -> list[Verdict]:
    """p99 of the wait in the morning against the same seed's without a forecast."""
    waits: dict[str, dict[tuple[float, int], float]] = {OURS: {}, FORECAST: {}}
    for each in results:
        if each.job.scene == "morning" and each.job.scaler in waits:
            waits[each.job.scaler][each.job.cold_start_seconds, each.job.seed] = each.figures.wait_p99_seconds
    pairs = [(wait, waits[FORECAST][run]) for run, wait in waits[OURS].items() if run in waits[FORECAST]]
    if not pairs:
        return []
    worst = max(learned / without if without else float(learned > 0) for without, learned in pairs)
    claim = "p99 wait with the forecast, of that without"
    return [Verdict("morning", claim, f"{worst:.0%}", f"{FORECAST_SHARE:.0%}", worst <= FORECAST_SHARE)]
