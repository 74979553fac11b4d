"""What is in use of the node, from /proc."""

from __future__ import annotations

import pytest

from spillway_sidecar.reporting.host import INTERVAL_SECONDS, HostLoad, HostSampler, read_proc

MEMINFO = "MemTotal:       1000 kB\nMemFree:         100 kB\nMemAvailable:    250 kB\n"


class Proc:
    """Files of /proc."""

    def __init__(self) -> None:
        self.files = {"stat": "cpu  10 0 10 70 10 0 0 0 5 0\ncpu0 1 1 1 1\n", "meminfo": MEMINFO}
        self.reads = 0

    def __call__(self, name: str) -> str:
        self.reads += 1
        if name not in self.files:
            raise FileNotFoundError(name)
        return self.files[name]


def test_cpu_is_over_the_time_between_two_samples_and_memory_at_once() -> None:
    proc = Proc()
    sampler = HostSampler(proc)
    assert sampler.sample(0.0) == HostLoad(None, 0.75)
    proc.files["stat"] = "cpu  70 0 10 100 20 0 0 0 5 0\n"
    assert sampler.sample(INTERVAL_SECONDS / 2) == HostLoad(None, 0.75)
    assert proc.reads == 2
    assert sampler.sample(INTERVAL_SECONDS) == HostLoad(pytest.approx(0.6), 0.75)
    assert sampler.sample(2 * INTERVAL_SECONDS).cpu_ratio is None, "no time has passed by the kernel's own count"


@pytest.mark.parametrize(
    ("name", "text"),
    [("stat", ""), ("stat", "cpu a b c d e"), ("stat", "intr 1 2 3 4 5"), ("meminfo", ""), ("meminfo", "MemTotal: 0 kB\nMemAvailable: 0 kB\n")],
)  # fmt: skip
def test_what_cannot_be_read_is_unknown(name: str, text: str) -> None:
    proc = Proc()
    proc.files[name] = text
    sampler = HostSampler(proc)
    sampler.sample(0.0)
    load = sampler.sample(5.0)
    assert (load.cpu_ratio if name == "stat" else load.memory_ratio) is None


def test_a_system_without_proc_is_unknown() -> None:
    proc = Proc()
    proc.files = {}
    assert HostSampler(proc).sample(0.0) == HostLoad()


def test_this_machine_is_read() -> None:
    sampler = HostSampler(read_proc)
    memory = sampler.sample(0.0).memory_ratio
    assert memory is None or 0.0 < memory < 1.0
