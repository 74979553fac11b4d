"""The pod's own GPUs in a node's DCGM text."""

import pytest
from tests.unit.engines import corpora

from spillway_sidecar.engines import GpuLoad, dcgm_load


def test_percent_of_the_pods_own_gpus_becomes_a_ratio() -> None:
    assert dcgm_load(corpora.DCGM, "default", "fast-0") == GpuLoad(utilization_ratio=0.75, memory_ratio=0.75)


def test_engine_activity_is_preferred_and_is_a_ratio_already() -> None:
    assert dcgm_load(corpora.DCGM_PROFILING, "default", "fast-0").utilization_ratio == pytest.approx(0.6)


@pytest.mark.parametrize(("namespace", "pod"), [("other", "fast-0"), ("default", "fast-1"), ("default", ""), ("", "")])
def test_a_neighbours_gpu_is_never_ours(namespace: str, pod: str) -> None:
    assert dcgm_load(corpora.DCGM_PROFILING, namespace, pod) == GpuLoad()


def test_gpus_without_a_pod_match_nobody_without_a_name() -> None:
    assert dcgm_load(b'DCGM_FI_DEV_GPU_UTIL{gpu="0"} 90\n', "", "") == GpuLoad()


def test_labels_moved_by_a_scrape_are_the_workloads() -> None:
    text = (
        b'DCGM_FI_DEV_GPU_UTIL{namespace="gpu",pod="dcgm-x",exported_namespace="default",exported_pod="fast-0"} 40\n'
        b'DCGM_FI_DEV_GPU_UTIL{namespace="default",pod="fast-0",exported_namespace="a",exported_pod="b"} 90\n'
    )
    assert dcgm_load(text, "default", "fast-0").utilization_ratio == 0.4


@pytest.mark.parametrize(
    ("used", "free", "ratio"), [("5", None, None), (None, "5", None), ("0", "0", None), ("0", "5", 0.0), ("1e308", "1.7e308", None)]
)
def test_memory_needs_both_sides(used: str | None, free: str | None, ratio: float | None) -> None:
    labels = '{namespace="n",pod="p"}'
    lines = [f"DCGM_FI_DEV_FB_{name}{labels} {value}\n" for name, value in (("USED", used), ("FREE", free)) if value]
    assert dcgm_load("".join(lines).encode(), "n", "p").memory_ratio == ratio
