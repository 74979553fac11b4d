"""`python -m e2e.cluster`: a Kubernetes of the project's own, up and down.

up      builds what is missing, starts a cluster and prints what `env` prints
down    ends it and removes its state
status  its programs; fails where it does not run as it should
env     shell lines that make kubectl and helm speak to it: eval "$(python -m e2e.cluster env)"
tools   only builds and downloads what a tier needs; without --tier, of the best that this machine can hold
stop    kills a program of the cluster and keeps it away (kube-apiserver, etcd ...)
start   lets it run again; `start node-2` adds a second node to the node tier
load    makes an image (a docker or OCI archive) known to the nodes
exec    runs a command in the namespaces of a node
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

from e2e.cluster import keeping, lifecycle, machine, node, programs
from e2e.cluster.keeper import PROGRAMS
from e2e.cluster.layout import ClusterError, Layout, Tier, default_state


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    if options.tier is None:
        options.tier = machine.best_tier() if options.command == "tools" else Tier.CONTROL_PLANE
    state: Path = options.state or default_state(options.tier)
    try:
        return _run(options, state)
    except ClusterError as error:
        print(f"e2e: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, state: Path) -> int:
    match options.command:
        case "up":
            start = time.monotonic()
            cluster = lifecycle.up(state, options.tier, hours=options.hours)
            print(f"e2e: up in {time.monotonic() - start:.1f} s", file=sys.stderr)
            _print_environment(cluster)
        case "down":
            lifecycle.down(state)
        case "status":
            return _status(lifecycle.running(state))
        case "env":
            _print_environment(lifecycle.running(state))
        case "tools":
            print(programs.have(options.tier).search_path.split(":/usr", 1)[0])
        case "stop":
            lifecycle.stop(lifecycle.running(state), options.program)
        case "start":
            lifecycle.start(lifecycle.running(state), options.program)
        case "load":
            cluster = lifecycle.running(state)
            node.load(cluster.layout, cluster.programs, options.image)
        case "exec":
            command = _entering(lifecycle.running(state).layout, options)
            os.execvp(command[0], command)
        case "_keep":
            keeping.keep(Layout.load(state), hours=options.hours, lifeline=options.lifeline)
        case "_inside":
            keeping.inside(Layout.load(state), options.node)
    return 0


def _print_environment(cluster: lifecycle.Cluster) -> None:
    for name, value in cluster.environment().items():
        if name != "PATH":
            print(f"export {name}={value}")
    own = ":".join(str(folder) for folder in cluster.programs.folders)
    print(f'export PATH="{own}:$PATH"' if own else "")


def _entering(layout: Layout, options: argparse.Namespace) -> list[str]:
    arguments = options.arguments[1:] if options.arguments[:1] == ["--"] else options.arguments
    return node.entering(layout, arguments, node=layout.second_node if options.node == "node-2" else layout.first_node)


def _status(cluster: lifecycle.Cluster) -> int:
    said = json.loads((cluster.layout.state / PROGRAMS).read_text())
    for name, one in said.items():
        print(f"{name:<26}{'running' if one['running'] else 'stopped':<10}started {one['starts']} time(s)")
    print(f"{cluster.layout.tier} at {cluster.layout.api_url}, state in {cluster.layout.state}")
    wanted = [name for name in said if name not in lifecycle.stopped(cluster)]
    return 0 if all(said[name]["running"] for name in wanted) else 1


def _parser() -> argparse.ArgumentParser:
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--tier", type=Tier, choices=list(Tier), help="control-plane where left out")
    shared.add_argument("--state", type=Path, help="the cluster's state folder (default: .spillway/e2e-TIER in the checkout)")
    parser = argparse.ArgumentParser(
        prog="python -m e2e.cluster", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name in ("down", "status", "env", "tools", "_inside"):
        commands.add_parser(name, parents=[shared])
    for name in ("up", "_keep"):
        command = commands.add_parser(name, parents=[shared])
        command.add_argument("--hours", type=float, default=lifecycle.DEFAULT_HOURS, help="ends by itself after so long")
        if name == "_keep":
            command.add_argument("--lifeline", action="store_true")
    for name in ("stop", "start"):
        commands.add_parser(name, parents=[shared]).add_argument("program")
    commands.add_parser("load", parents=[shared]).add_argument("image", type=Path)
    execute = commands.add_parser("exec", parents=[shared])
    execute.add_argument("arguments", nargs=argparse.REMAINDER)
    for command in (execute, commands.choices["_inside"]):
        command.add_argument("--node", choices=["node-1", "node-2"], default="node-1")
    return parser


if __name__ == "__main__":
    sys.exit(main())
