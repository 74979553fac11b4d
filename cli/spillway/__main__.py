"""The `spillway` command.

A sub-command's module is imported only when it is the one asked for, and what it runs only when it runs: help is there at once.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from spillway.options import apply_environment, formatter

# Name, purpose and module, in the order of the help. Each module has `add_parser(subparsers)`, which sets `run`.
COMMANDS = (
    ("run", "run everything on this machine, without a cluster", "spillway.run.command"),
    ("validate", "check resource documents, without applying them", "spillway.validate"),
    ("get", "show routes or backends with their live load", "spillway.get.command"),
    ("explain", "tell why a request went where it did", "spillway.explain"),
    ("inject", "print manifests with the sidecar in their pods", "spillway.inject"),
    ("simulate", "run traffic through models of engines and several policies", "spillway.simulate.command"),
    ("sim-engine", "run one simulated inference engine", "spillway.sim_engine.command"),
    ("version", "print the versions of Spillway and Python", "spillway.version"),
)

IN_CLUSTER = ("get", "explain")  # commands that can ask a cluster

DESCRIPTION = """\
Spillway routes model traffic and lets the load decide where it goes.

ModelRoute and ModelBackend resources, in YAML, say which model names go to which
servers; proxies take OpenAI-style requests and send each to the endpoint that has room.
"""

EXAMPLES = """\
examples:
  spillway run examples/quickstart      everything on this machine, with simulated engines
  spillway validate my-routes/          what is wrong in a folder of YAML, by file and line
  spillway get routes --watch           routes with their live load
  spillway explain REQUEST_ID           why a request went where it did

exit codes: 0 done, 1 the answer is no or something failed, 2 the command line is wrong
Each option can be given as SPILLWAY_<OPTION> in the environment, e.g. SPILLWAY_ADMIN_PORT=9081.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """What a command line asks for. Ends the process, with 2 if it is wrong, with 0 after help."""
    parser = argparse.ArgumentParser(
        prog="spillway", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=formatter, allow_abbrev=False
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, purpose, module in COMMANDS:
        if argv and name == argv[0]:
            importlib.import_module(module).add_parser(subparsers)
            asked = subparsers.choices[name]
            apply_environment(asked, os.environ)
            # Options may stand between the arguments, as in `get backends -o wide fast`.
            return asked.parse_intermixed_args(argv[1:])
        subparsers.add_parser(name, help=purpose)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; its exit code."""
    args = parse(sys.argv[1:] if argv is None else argv)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has left, e.g. `| head`. Python would complain at exit when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def plugin(argv: Sequence[str] | None = None) -> int:
    """`kubectl spillway`: the same commands, asking the cluster that kubectl talks to."""
    given = list(sys.argv[1:] if argv is None else argv)
    return main([*given[:1], "--cluster", *given[1:]] if given[:1] in ([name] for name in IN_CLUSTER) else given)


if __name__ == "__main__":
    sys.exit(main())
