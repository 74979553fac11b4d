"""Scorers: each looks at one thing and gives every candidate 0 (worst) to 1 (best). Their weighted sum decides.

A scorer is a module with a function, a name in `spillway_wire.names.Scorer`, and its line in one of the tables below. Those of
`AMONG_ENDPOINTS` compare the endpoints of one backend, those of `AMONG_BACKENDS` the backends of one priority.

What is unknown or stale is never 0 and never 1: it gets the mean of what is known, and a half where nothing is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.scorers import (
    cost,
    gpu_utilization,
    in_flight,
    kv_cache,
    latency,
    load,
    lora_affinity,
    prefix_affinity,
    queue_depth,
    session_affinity,
    success_rate,
)
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.names import Scorer

EndpointScorer = Callable[[Sequence[EndpointState], Pool[Any], Request, View], list[float]]
BackendScorer = Callable[[Sequence[Pool[Any]], Request, View], list[float]]

AMONG_ENDPOINTS: Final[Mapping[Scorer, EndpointScorer]] = MappingProxyType(
    {
        Scorer.LOAD: load.score,
        Scorer.IN_FLIGHT: in_flight.score,
        Scorer.QUEUE_DEPTH: queue_depth.score,
        Scorer.KV_CACHE: kv_cache.score,
        Scorer.GPU_UTILIZATION: gpu_utilization.score,
        Scorer.PREFIX_AFFINITY: prefix_affinity.score,
        Scorer.SESSION_AFFINITY: session_affinity.score,
        Scorer.LORA_AFFINITY: lora_affinity.score,
    }
)
AMONG_BACKENDS: Final[Mapping[Scorer, BackendScorer]] = MappingProxyType(
    {
        Scorer.LATENCY: latency.score,
        Scorer.SUCCESS_RATE: success_rate.score,
        Scorer.COST: cost.score,
    }
)
