"""The veth pair between the machine and the node: the only thing the node tier adds to the machine's network.

The machine gets routes to the pods and the Services through it. The keeper removes it in the end. After a keeper was killed it
goes by itself with the node's network namespace, which connections that were open can keep for minutes; so the machine's end
carries the state folder of its cluster, and the next one removes it when that is not running.
"""

import subprocess
import time
from pathlib import Path

from e2e.cluster.keeper import keeper_of
from e2e.cluster.layout import ClusterError, Layout

MACHINE_LINK = "spillway-e2e"
NODE_LINK = "eth0"
_PREFIX_LENGTH = 24


def claim() -> None:
    """Raises ClusterError where another cluster has the pair; removes what one left that was killed."""
    owner = _owner()
    if owner is not None and keeper_of(owner) is not None:
        raise ClusterError(f"the node tier runs once on a machine, and it runs in {owner}: take that down first")
    disconnect_machine()


def connect_machine(layout: Layout, first_process: int) -> None:
    """Makes the pair, one end in the namespace of that process."""
    addresses = layout.network
    for command in (
        ("link", "add", MACHINE_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", str(first_process)),
        ("link", "set", MACHINE_LINK, "alias", str(layout.state)),
        ("address", "add", f"{addresses.machine}/{_PREFIX_LENGTH}", "dev", MACHINE_LINK),
        ("link", "set", MACHINE_LINK, "up"),
        ("route", "add", addresses.pods, "via", addresses.node),
        ("route", "add", addresses.services, "via", addresses.node),
    ):
        _must(*command)


def disconnect_machine() -> None:
    """Removes the pair, if it is there, and the routes with it."""
    if _ip("link", "show", MACHINE_LINK).returncode == 0:
        _must("link", "delete", MACHINE_LINK)


def _owner() -> Path | None:
    """The state folder of the cluster that made the pair."""
    try:
        return Path(Path(f"/sys/class/net/{MACHINE_LINK}/ifalias").read_text().strip())
    except FileNotFoundError:
        return None


def connect_node(layout: Layout, *, seconds: float = 10.0) -> None:
    """Inside the node's namespace: waits for its end of the pair and gives it its address."""
    addresses = layout.network
    deadline = time.monotonic() + seconds
    while _ip("link", "show", NODE_LINK).returncode != 0:
        if time.monotonic() > deadline:
            raise ClusterError(f"no link {NODE_LINK} in the node's namespace")
        time.sleep(0.02)
    _must("link", "set", "lo", "up")
    _must("address", "add", f"{addresses.node}/{_PREFIX_LENGTH}", "dev", NODE_LINK)
    _must("link", "set", NODE_LINK, "up")
    _must("route", "add", "default", "via", addresses.machine)


def _must(*arguments: str) -> None:
    done = _ip(*arguments)
    if done.returncode:
        raise ClusterError(f"`ip {' '.join(arguments)}`: {done.stderr.strip()}")


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
