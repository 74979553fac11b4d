"""`spillway get`: options."""

from __future__ import annotations

import argparse

from spillway import cluster
from spillway.admin import DEFAULT_OPERATOR_URL
from spillway.options import Parsers, add_command

EXAMPLES = """
examples:
  spillway get routes                     the routes of `spillway run`, with their live load
  spillway get backends -o wide           more columns
  spillway get routes chat -o yaml        one object with its status
  spillway get backends --watch           a line whenever something changes
  spillway get routes -o json | jq '.items[].status.conditions'
  spillway get routes --context prod      those of a cluster; also: kubectl spillway get routes

exit codes: 0 done, 1 no operator there or no object of that name, 2 the command line is wrong
"""

KINDS = {
    "routes": "ModelRoute", "route": "ModelRoute", "mroute": "ModelRoute", "mroutes": "ModelRoute", "modelroute": "ModelRoute",
    "modelroutes": "ModelRoute", "backends": "ModelBackend", "backend": "ModelBackend", "mbackend": "ModelBackend",
    "mbackends": "ModelBackend", "modelbackend": "ModelBackend", "modelbackends": "ModelBackend",
}  # fmt: skip


def kind_of(text: str) -> str:
    """The kind that a word on the command line means, for `type=`."""
    if text.lower() not in KINDS:
        raise argparse.ArgumentTypeError(f"{text!r} is neither routes nor backends")
    return KINDS[text.lower()]


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "get",
        "Shows the objects of a running operator in the columns that `kubectl get` shows in a cluster. Documents that the operator "
        "could not use are told below the table, on stderr.",
        EXAMPLES,
        run,
    )
    parser.add_argument("kind", type=kind_of, metavar="routes|backends", help="what to show")
    parser.add_argument("name", nargs="?", help="one object of that kind; all if left out")
    parser.add_argument("-n", "--namespace", metavar="NS", help="only of this namespace (default: of all)")
    parser.add_argument(
        "-o",
        "--output",
        choices=("table", "wide", "json", "yaml"),
        default="table",
        help="form of the output; json and yaml are whole",
    )
    parser.add_argument("-w", "--watch", action="store_true", help="go on and show what changes, until Ctrl-C")
    parser.add_argument("--admin", default=DEFAULT_OPERATOR_URL, metavar="URL", help="the operator's admin address")
    cluster.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Show objects; the exit code."""
    from spillway.get.show import show

    return show(args)
