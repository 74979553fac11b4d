"""`spillway run` on resources of a bench's own, with a provider outside beside it, both ended with the bench."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.fakes.ports import free_port, free_ports
from tests.integration.standalone.conftest import Standalone, until

from spillway.run.ports import is_free

# The simulated pool of every bench that has one, as the beginning of a `str.format` template.
POOL_BACKEND = """
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {{name: pool}}
spec: {{provider: VLLM, model: pool-model, pods: {{selector: {{matchLabels: {{app: pool}}}}, port: 8000}}}}
---
"""


@contextlib.contextmanager
def running(files: dict[str, str], *arguments: str) -> Iterator[Standalone]:
    """Programmed and ready."""
    folder = Path(tempfile.mkdtemp(prefix="spillway-bench-"))
    (folder / "yaml").mkdir()
    for name, text in files.items():
        (folder / "yaml" / name).write_text(text)
    port, admin = free_port(), free_ports(3)
    command = [sys.executable, "-m", "spillway", "run", str(folder / "yaml"), "--port", str(port), "--admin-port", str(admin)]
    command += ["--state-dir", str(folder / "state"), *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    standalone = Standalone(folder / "yaml", folder / "state", port, admin, process)
    try:
        until(standalone.synced, f"every route programmed and ready; logs in {folder}", seconds=60)
        yield standalone
    finally:
        standalone.stop()


@contextlib.contextmanager
def provider(*arguments: str) -> Iterator[int]:
    """A simulated engine that stands for a provider outside; its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "spillway", "sim-engine", "--port", str(port), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: not is_free(port), "the provider listens")
        yield port
    finally:
        process.terminate()
        process.wait(20)
