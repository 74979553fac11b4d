"""Samples the node: its CPU and memory, as the kernel shows them in /proc, also to a container.

They stand in where an engine has no GPU or no KV cache to speak of. A busy node is a reason to look elsewhere, whoever makes it busy.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

INTERVAL_SECONDS: Final = 1.0
_MEMORY: Final = re.compile(r"^(MemTotal|MemAvailable):\s+([0-9]+) kB$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class HostLoad:
    """What is in use of a node. None is unknown."""

    cpu_ratio: float | None = None
    memory_ratio: float | None = None


def read_proc(name: str) -> str:
    """A file of /proc. Raises OSError."""
    return Path("/proc", name).read_text(encoding="ascii", errors="replace")


class HostSampler:
    """Reads the node's figures, at most once each `INTERVAL_SECONDS`. CPU is over the time between two samples."""

    def __init__(self, read: Callable[[str], str] = read_proc) -> None:
        self._read = read
        self._load = HostLoad()
        self._sampled_at_seconds: float | None = None
        self._ticks: tuple[int, int] | None = None

    def sample(self, now: float) -> HostLoad:
        """The node as known at `now`."""
        if self._sampled_at_seconds is None or now - self._sampled_at_seconds >= INTERVAL_SECONDS:
            self._sampled_at_seconds = now
            self._load = HostLoad(self._cpu(), self._memory())
        return self._load

    def _cpu(self) -> float | None:
        try:
            first = self._read("stat").split("\n", 1)[0].split()
            fields = [int(field) for field in first[1:9]]
        except (OSError, ValueError):
            return None
        if first[:1] != ["cpu"] or len(fields) < 5:
            return None
        before, self._ticks = self._ticks, (sum(fields), fields[3] + fields[4])  # all, and of these idle or waiting for a disk
        if before is None or self._ticks[0] <= before[0]:
            return None
        idle = (self._ticks[1] - before[1]) / (self._ticks[0] - before[0])
        return min(max(1.0 - idle, 0.0), 1.0)

    def _memory(self) -> float | None:
        try:
            found = {name: int(amount) for name, amount in _MEMORY.findall(self._read("meminfo"))}
        except OSError:
            return None
        total = found.get("MemTotal", 0)
        return min(max(1.0 - found["MemAvailable"] / total, 0.0), 1.0) if total and "MemAvailable" in found else None
