"""GPUUtilization: how idle the endpoint's GPU is; its node's CPU where it has no GPU or does not tell."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers.scale import filled, fresh
from spillway_sidecar.scheduling.state import EndpointState


def score(endpoints: Sequence[EndpointState], _: Pool[Any], __: Request, view: View) -> list[float]:
    """The idle share."""
    return filled([_idle(endpoint, view.now) for endpoint in endpoints])


def _idle(endpoint: EndpointState, now: float) -> float | None:
    load = fresh(endpoint, now)
    if load is None:
        return None
    used = load.gpu_ratio if load.gpu_ratio is not None else load.cpu_ratio
    return None if used is None else 1.0 - used
