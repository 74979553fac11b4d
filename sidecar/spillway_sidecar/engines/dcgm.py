"""A pod's GPU figures in a DCGM exporter's text, which covers every GPU of the node.

Samples count only if they carry the pod's name and namespace: the figures of a neighbour's GPU are worse than none. A
scrape in between may have moved the exporter's own labels to `exported_*`; those then are the workload's. Engine activity
(`DCGM_FI_PROF_GR_ENGINE_ACTIVE`, a ratio, the only one with MIG) goes before utilisation (`DCGM_FI_DEV_GPU_UTIL`, percent).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spillway_sidecar.engines.exposition import read_samples


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """Mean utilisation of a pod's GPUs and the share of their memory in use, from whatever source. None is unknown."""

    utilization_ratio: float | None = None
    memory_ratio: float | None = None


def dcgm_load(exposition: bytes, namespace: str, pod: str) -> GpuLoad:
    """The GPU load of the pod `namespace/pod`. Any bytes are accepted; none raise."""
    active = _of_pod(exposition, "DCGM_FI_PROF_GR_ENGINE_ACTIVE", namespace, pod)
    if not active:
        active = [percent / 100 for percent in _of_pod(exposition, "DCGM_FI_DEV_GPU_UTIL", namespace, pod)]
    used = _of_pod(exposition, "DCGM_FI_DEV_FB_USED", namespace, pod)
    free = _of_pod(exposition, "DCGM_FI_DEV_FB_FREE", namespace, pod)
    return GpuLoad(
        utilization_ratio=sum(min(value, 1.0) for value in active) / len(active) if active else None,
        memory_ratio=_share(sum(used), sum(free)) if used and free else None,
    )


def _share(used: float, free: float) -> float | None:
    total = used + free
    return used / total if 0 < total < math.inf else None


def _of_pod(exposition: bytes, name: str, namespace: str, pod: str) -> list[float]:
    if not pod:
        return []
    samples = read_samples(exposition, name) or ()
    return [sample.value for sample in samples if _workload(sample.labels) == (namespace, pod)]


def _workload(labels: Mapping[str, str]) -> tuple[str | None, str | None]:
    prefix = "exported_" if "exported_pod" in labels else ""
    return labels.get(f"{prefix}namespace"), labels.get(f"{prefix}pod")
