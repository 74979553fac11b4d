"""The veth pair between the machine and the node: the only thing the node tier adds to the machine's network.

The machine gets routes to the pods and the Services through it. Both ends and the routes go by themselves with the node's
network namespace, so a killed cluster leaves none of it.
"""

import subprocess
import time

from e2e.cluster.layout import ClusterError, Layout

MACHINE_LINK = "spillway-e2e"
NODE_LINK = "eth0"
_PREFIX_LENGTH = 24


def connect_machine(layout: Layout, first_process: int) -> None:
    """Makes the pair, one end in the namespace of that process. Raises ClusterError where another cluster has it."""
    addresses = layout.network
    if _ip("link", "show", MACHINE_LINK).returncode == 0:
        raise ClusterError(f"the link {MACHINE_LINK} is there: another cluster of the node tier runs on this machine; take it down")
    for command in (
        ("link", "add", MACHINE_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", str(first_process)),
        ("address", "add", f"{addresses.machine}/{_PREFIX_LENGTH}", "dev", MACHINE_LINK),
        ("link", "set", MACHINE_LINK, "up"),
        ("route", "add", addresses.pods, "via", addresses.node),
        ("route", "add", addresses.services, "via", addresses.node),
    ):
        _must(*command)


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
