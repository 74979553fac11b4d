"""How a node is linked: by a veth pair, to the machine (the first node) or to the first node (the second).

The pair to the machine is the only thing that the node tier adds to the machine's network, with routes to the nodes, the pods
and the Services through it. The keeper removes it in the end. After a keeper was killed it goes by itself with the node's
network namespace, which connections that were open can keep for minutes; so the machine's end carries the state folder of its
cluster, and the next one removes it when that is not running.
"""

import subprocess
import time
from pathlib import Path

from e2e.cluster.keeper import keeper_of
from e2e.cluster.layout import ClusterError, Layout, Node

MACHINE_LINK = "spillway-e2e"
NODE_LINK = "eth0"
LINK_SECONDS = 10.0


def claim(state: Path) -> None:
    """Raises ClusterError where the cluster of another state folder has the pair; removes what a killed one left."""
    owner = owner_of_pair()
    if owner is not None and owner != state and keeper_of(owner) is not None:
        raise ClusterError(f"the node tier runs once on a machine, and it runs in {owner}: take that down first")
    disconnect_machine()


def connect_machine(layout: Layout, first_process: int) -> None:
    """Makes the pair between the machine and the first node, whose process 1 that is."""
    node = layout.first_node
    _pair(node, MACHINE_LINK, namespace=str(first_process))
    _must("link", "set", MACHINE_LINK, "alias", str(layout.state))
    for network in (layout.network.nodes, layout.network.pods, layout.network.services):
        _must("route", "add", network, "via", node.address)


def disconnect_machine() -> None:
    """Removes the pair, if it is there, and the routes with it."""
    if _ip("link", "show", MACHINE_LINK).returncode == 0:
        _must("link", "delete", MACHINE_LINK)


def connect_second_node(node: Node) -> None:
    """On the first node: a network namespace with the second node's name, and the pair to it."""
    _must("netns", "add", node.name)
    _pair(node, node.name, namespace=node.name)
    _must("route", "add", node.pods, "via", node.address)


def arrange_node(node: Node) -> None:
    """On a node: waits for its end of the pair, and gives it its address."""
    deadline = time.monotonic() + LINK_SECONDS
    while _ip("link", "show", NODE_LINK).returncode != 0:
        if time.monotonic() > deadline:
            raise ClusterError(f"no link {NODE_LINK} came to {node.name}")
        time.sleep(0.02)
    _must("link", "set", "lo", "up")
    _must("address", "replace", f"{node.address}/24", "dev", NODE_LINK)
    _must("link", "set", NODE_LINK, "up")
    _must("route", "replace", "default", "via", node.gateway)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _pair(node: Node, link: str, *, namespace: str) -> None:
    _must("link", "add", link, "type", "veth", "peer", "name", NODE_LINK, "netns", namespace)
    _must("address", "add", f"{node.gateway}/24", "dev", link)
    _must("link", "set", link, "up")


def owner_of_pair() -> Path | None:
    """The state folder of the cluster that made the pair to the machine."""
    try:
        return Path(Path(f"/sys/class/net/{MACHINE_LINK}/ifalias").read_text().strip())
    except FileNotFoundError:
        return None


def _must(*arguments: str) -> None:
    done = _ip(*arguments)
    if done.returncode:
        raise ClusterError(f"`ip {' '.join(arguments)}`: {done.stderr.strip()}")


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
