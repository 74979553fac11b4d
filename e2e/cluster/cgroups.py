"""The cgroups of containers: the one thing of a node that does not end with its namespaces. They lie under one folder."""

import os
import time
from pathlib import Path

from e2e.cluster.layout import ClusterError

CGROUP = "spillway-e2e"
_CGROUPS = Path("/sys/fs/cgroup")
# All pods together are one group, which would have the processor time of one process of a busy machine.
_SHARES, _WEIGHT = "16384", "1600"


def remove_cgroups() -> None:
    """Removes the cgroups that containers left. They are empty once their processes are gone, which takes the kernel a moment."""
    roots = [root for root in (_CGROUPS / CGROUP, *_CGROUPS.glob(f"*/{CGROUP}")) if root.is_dir()]
    for root in roots:
        for folder, _, _ in os.walk(root, topdown=False):
            _remove_cgroup(Path(folder))


def _remove_cgroup(folder: Path, *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"{folder} cannot be removed: {error}") from error
            time.sleep(0.05)
        else:
            return


def make_cgroups(node: str) -> str:
    """A root for the pods of a node, in each hierarchy of version 1 or in the one of version 2. Returns its path in them."""
    own = f"{CGROUP}/{node}"
    version_2 = (_CGROUPS / "cgroup.controllers").exists()
    hierarchies = [_CGROUPS] if version_2 else [one for one in _CGROUPS.iterdir() if (one / "cgroup.procs").exists()]
    for hierarchy in hierarchies:
        (hierarchy / own).mkdir(parents=True, exist_ok=True)
    for file, share in ((_CGROUPS / "cpu" / CGROUP / "cpu.shares", _SHARES), (_CGROUPS / CGROUP / "cpu.weight", _WEIGHT)):
        if file.exists():
            file.write_text(share)
    for folder in (CGROUP, own):
        if (_CGROUPS / "cpuset" / folder).exists():  # one of version 1 begins empty, and an empty one takes no process
            for name in ("cpuset.cpus", "cpuset.mems"):
                (_CGROUPS / "cpuset" / folder / name).write_text((_CGROUPS / "cpuset" / name).read_text())
    return f"/{own}"
