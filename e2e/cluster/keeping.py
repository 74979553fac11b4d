"""What the keeper's process does on each tier, and how it learns that it is time to end."""

import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import cgroups, network, node, programs
from e2e.cluster.control_plane import control_plane
from e2e.cluster.keeper import TICK_SECONDS, Keeper, told_to_end
from e2e.cluster.layout import ClusterError, Layout, Tier

NAMESPACES_SECONDS = 10.0


def keep(layout: Layout, *, hours: float, lifeline: bool) -> None:
    """Runs the cluster until SIGTERM, until the time is over, or until whoever holds our standard input is gone."""
    over = _over(hours, lifeline)
    if layout.tier is Tier.CONTROL_PLANE:
        Keeper(layout.state, control_plane(layout, programs.have(layout.tier))).run(over)
    else:
        _keep_namespaces(layout, over)


def _keep_namespaces(layout: Layout, over: Callable[[], bool]) -> None:
    network.claim(layout.state)
    cgroups.remove_cgroups()
    # Everything of the node tier is under this one process: when it goes, the kernel ends all that its namespaces hold.
    command = node.in_namespaces(layout, layout.first_node, ("mount", "net", "pid"))
    outer = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", "--", *command], stdin=subprocess.DEVNULL)
    try:
        network.connect_machine(layout, _first_process(layout, outer))
        while not over() and outer.poll() is None:
            time.sleep(TICK_SECONDS)
    finally:
        outer.kill()
        outer.wait()
        network.disconnect_machine()
        cgroups.remove_cgroups()


def remove_remains(state: Path) -> None:
    """What a keeper leaves on the machine that was killed: the pair, and cgroups."""
    if network.owner_of_pair() == state.resolve():
        network.disconnect_machine()
        cgroups.remove_cgroups()


def inside(layout: Layout, name: str) -> None:
    """Process 1 of a node's namespaces; of those of the first node, where the control plane runs too."""
    have = programs.have(layout.tier)
    if name == layout.second_node.name:
        node.arrange_namespaces(layout, layout.second_node)
        Keeper(layout.second_node.folder, node.node_programs(layout, layout.second_node, have)).run(told_to_end())
        return
    node.arrange_namespaces(layout, layout.first_node)
    first = [*control_plane(layout, have), *node.node_programs(layout, layout.first_node, have), node.second_node(layout)]
    Keeper(layout.state, first).run(told_to_end())


def _first_process(layout: Layout, outer: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + NAMESPACES_SECONDS
    while time.monotonic() < deadline and outer.poll() is None:
        try:
            return int(layout.first_node.first_process.read_text())
        except (FileNotFoundError, ValueError):
            time.sleep(0.05)
    raise ClusterError("the namespaces of the node were not made")


def _over(hours: float, lifeline: bool) -> Callable[[], bool]:
    end = time.monotonic() + hours * 3600
    told = told_to_end()

    def over() -> bool:
        if told():
            return True
        if lifeline and select.select([sys.stdin], [], [], 0)[0]:
            return True
        return time.monotonic() > end

    return over
