"""SuccessRate: the share of a backend's recent attempts that this router saw end well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View


def score(pools: Sequence[Pool[Any]], _: Request, __: View) -> list[float]:
    """The share."""
    return [pool.speed.success_ratio for pool in pools]
