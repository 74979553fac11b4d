"""What this machine can hold: found out by trying, once, what a node begins with."""

import os
import subprocess
import sys

from e2e.cluster.layout import Tier

_TRIED = ("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--", "sh", "-ec")
_MOUNTS = "mount --make-rprivate / && mount -t proc proc /proc && mount -t tmpfs tmpfs /run && test -w /sys/fs/cgroup"


def lacks_for_nodes() -> str | None:
    """Why pods cannot run here, and what to do about it; None where they can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "pods need root on Linux, for namespaces and containers: run as root to have the node tier"
    try:
        tried = subprocess.run([*_TRIED, _MOUNTS], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "there is no `unshare` here to make namespaces with: install util-linux to have the node tier"
    if tried.returncode:
        said = tried.stderr.strip() or "/sys/fs/cgroup is read-only"
        return f"no namespaces or cgroups can be made here ({said}): use a virtual machine or a privileged container to have the node tier"
    return None


def best_tier() -> Tier:
    return Tier.CONTROL_PLANE if lacks_for_nodes() else Tier.NODE
