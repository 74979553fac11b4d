"""The `spillway` command. A sub-command's module is light; what it runs is imported when it runs."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from spillway.options import apply_environment, formatter

# In the order of the help. Each module has `add_parser(subparsers)`.
COMMANDS = (
    "spillway.run.command",
    "spillway.validate",
    "spillway.get.command",
    "spillway.explain",
    "spillway.sim_engine.command",
    "spillway.version",
)

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


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="spillway", description=DESCRIPTION, epilog=EXAMPLES, formatter_class=formatter, allow_abbrev=False
    )
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        try:
            importlib.import_module(name).add_parser(subparsers)
        except ModuleNotFoundError:
            continue
    for subparser in subparsers.choices.values():
        apply_environment(subparser, os.environ)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a sub-command; its exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output has left, e.g. `| head`. Python would complain at exit when it flushes what is left.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
