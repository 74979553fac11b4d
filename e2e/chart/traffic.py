"""Traffic that goes on while a test does something to the cluster, and what became of it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from e2e.chart.readme import in_network
from e2e.cluster import lifecycle
from e2e.cluster.layout import PROJECT

END_SECONDS = 90.0


@dataclass(slots=True)
class Traffic:
    """Requests at a steady rate; `tallies` are there when it has ended."""

    rate: float
    sender: subprocess.Popen[str]
    tallies: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def goes_on(self) -> bool:
        """Whether more is to come: a number that was asked for is not reached, or the machine is behind with it."""
        return self.sender.poll() is None

    @property
    def sent(self) -> int:
        return sum(tally["sent"] for tally in self.tallies.values())

    @property
    def lost(self) -> int:
        return sum(tally["sent"] - tally["ok"] for tally in self.tallies.values())

    def __str__(self) -> str:
        reasons = [
            f"\n  {kind}: {seen['times']} x {reason}, first after {seen['first_after_seconds']} s ({seen['request_id']})"
            for kind, tally in self.tallies.items()
            for reason, seen in tally["failures"].items()
        ]
        return f"{self.sent} requests at {self.rate:g}/s, {self.lost} failed{''.join(reasons)}"


@contextmanager
def traffic(cluster: lifecycle.Cluster, url: str, rate: float, most: int = 1_000_000) -> Iterator[Traffic]:
    """Sends from the node's network while the block runs; afterwards every request has come to its end, and is counted."""
    command = [*in_network(cluster), sys.executable, "-m", "e2e.chart.steady", url, str(rate), str(most)]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, cwd=PROJECT
    ) as sender:
        made = Traffic(rate, sender)
        try:
            yield made
        finally:
            try:
                out, _ = sender.communicate(timeout=END_SECONDS)
            finally:
                sender.kill()
            made.tallies = json.loads(out)
            print(made)
