"""The commands of the README, as they stand there: the fenced `sh` blocks of its section "On Kubernetes", in their order."""

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster import lifecycle
from e2e.cluster.layout import PROJECT

README = PROJECT / "README.md"
TIMEOUT_SECONDS = 150.0


def section() -> str:
    found = re.search(r"^## On Kubernetes\n(.*?)^## ", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def blocks() -> list[str]:
    return re.findall(r"^```sh\n(.*?)^```$", section(), re.DOTALL | re.MULTILINE)


@dataclass(slots=True)
class Shell:
    """A user's shell on the cluster's node, in the checkout: what it starts in the background goes on until `close`."""

    cluster: lifecycle.Cluster
    folder: Path
    groups: list[int] = field(default_factory=list)

    def run(self, block: str) -> str:
        """Runs a block; returns what it printed. Fails where a command of it does."""
        out = self.folder / f"block-{len(self.groups)}.out"
        own = f"{Path(sys.executable).parent}:{self.cluster.environment()['PATH']}"
        with out.open("w") as file:
            child = subprocess.Popen(
                [*in_network(self.cluster), "bash", "-eu", "-o", "pipefail", "-c", block],
                cwd=PROJECT,
                env={**os.environ, **self.cluster.environment(), "PATH": own},
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.groups.append(child.pid)
        code = child.wait(TIMEOUT_SECONDS)
        said = out.read_text()
        assert code == 0, f"{block}\nended with {code}:\n{said}"
        return said

    def close(self) -> None:
        for group in self.groups:
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.groups.clear()


def in_network(cluster: lifecycle.Cluster) -> list[str]:
    """A command line that runs a command in the network of the first node, where Services and `localhost` are the cluster's own."""
    return ["nsenter", "--target", cluster.layout.first_node.first_process.read_text(), "--net", "--"]
