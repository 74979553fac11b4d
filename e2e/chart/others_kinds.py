"""The CRDs of others whose kinds the chart can make, as they were released: cert-manager's and the Prometheus operator's.

Their files are in their Go modules, whose sums `e2e/tools/kinds/go.sum` has; nothing of them is built.
"""

import json
import shutil
import subprocess
from pathlib import Path

from e2e.cluster import programs
from e2e.cluster.cache import kept
from e2e.cluster.layout import ClusterError

SOURCE = programs.TOOLS / "kinds"
FILES = {
    "github.com/cert-manager/cert-manager": (
        "deploy/crds/cert-manager.io_certificates.yaml",
        "deploy/crds/cert-manager.io_issuers.yaml",
    ),
    "github.com/prometheus-operator/prometheus-operator": tuple(
        f"example/prometheus-operator-crd/monitoring.coreos.com_{kind}.yaml"
        for kind in ("servicemonitors", "podmonitors", "prometheusrules")
    ),
}


def crds() -> Path:
    """A folder with the CRDs; downloaded once."""

    def make(folder: Path) -> None:
        for module, files in FILES.items():
            wanted = f"{module}@{programs.module_version(SOURCE, module)}"
            command = ["go", "mod", "download", "-json", wanted]
            done = subprocess.run(
                command, cwd=SOURCE, env=programs.go_environment(SOURCE), capture_output=True, text=True, check=False
            )
            if done.returncode:
                raise ClusterError(f"{wanted} was not downloaded (it needs the network): {done.stdout}{done.stderr}")
            for file in files:
                shutil.copy(Path(json.loads(done.stdout)["Dir"], file), folder)

    return kept(f"kinds-{programs.lock_digest(SOURCE)}", make)
