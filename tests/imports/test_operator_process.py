"""The operator beside a laptop's files carries neither kopf nor the Kubernetes client: they are 25 MiB, and of no use there."""

from __future__ import annotations

import subprocess
import sys

LIST_MODULES = """
import sys
import spillway_operator.__main__
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_standalone_imports_no_cluster() -> None:
    answer = subprocess.run([sys.executable, "-c", LIST_MODULES], capture_output=True, text=True, check=True)
    loaded = set(answer.stdout.split())
    assert "spillway_operator" in loaded
    assert not loaded & {"kopf", "kubernetes"}
