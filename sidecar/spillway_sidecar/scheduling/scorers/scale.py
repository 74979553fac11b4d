"""From figures to scores."""

from __future__ import annotations

from collections.abc import Sequence

from spillway_sidecar.scheduling.state import STALE_SECONDS, EndpointState
from spillway_wire.loads import Load

UNKNOWN = 0.5


def least(figures: Sequence[float]) -> list[float]:
    """The least figure over each: half as good is half the score. Figures are above 0, or all that are 0 are best."""
    best = min(figures)
    if best <= 0.0:
        return [1.0 if figure <= 0.0 else 0.0 for figure in figures]
    return [best / figure for figure in figures]


def between(figures: Sequence[float]) -> list[float]:
    """1 for the least figure, 0 for the greatest, in proportion between; all 1 where they are equal."""
    low, high = min(figures), max(figures)
    if high <= low:
        return [1.0] * len(figures)
    return [(high - figure) / (high - low) for figure in figures]


def filled(figures: Sequence[float | None]) -> list[float]:
    """Unknown figures replaced by the mean of the known ones, or by a half."""
    known = [figure for figure in figures if figure is not None]
    mean = sum(known) / len(known) if known else UNKNOWN
    return [mean if figure is None else figure for figure in figures]


def fresh(endpoint: EndpointState, now: float) -> Load | None:
    """The endpoint's last report, if it still counts."""
    return endpoint.load if now - endpoint.reported_at <= STALE_SECONDS else None
