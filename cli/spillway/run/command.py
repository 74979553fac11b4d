"""`spillway run`: options."""

from __future__ import annotations

import argparse

from spillway.options import Parsers, add_command

EXAMPLES = """
examples:
  spillway run examples/quickstart                     two simulated backends, one route
  spillway run examples/laptop                         a local model server beside a paid provider
  spillway run my-routes/ --simulate llama=3           three simulated engines for the backend llama
  SPILLWAY_SECRET_OPENAI_TOKEN=sk-.. spillway run my-routes/
  spillway run my-routes/ --secrets-dir ~/.keys        the key is the file ~/.keys/openai/token

what runs (all on 127.0.0.1):
  gateway     the OpenAI-style API, on --port
  operator    reads the YAML, configures the proxies, follows the load; admin pages on --admin-port,
              the stream to the proxies on --admin-port + 2. The gateway's admin pages are on --admin-port + 1
  engine, sidecar    one pair for each simulated endpoint, on free ports
Files are watched: an edit takes effect at once, and a wrong document leaves its last good version in force.

exit codes: 0 stopped by Ctrl-C or SIGTERM, 1 could not start (a port or the state folder is taken, no such path),
            2 the command line is wrong
"""


def replicas(text: str) -> tuple[str, int]:
    """`NAME=N`, for `type=`."""
    from spillway.run.standalone import backend_key

    name, separator, count = text.partition("=")
    if not (separator and count.isascii() and count.isdigit() and int(count) <= 64):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=N with N from 0 to 64")
    try:
        return backend_key(name), int(count)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def port(text: str) -> int:
    """A port, for `type=`."""
    value = int(text)
    if not 0 <= value <= 65_535:
        raise argparse.ArgumentTypeError(f"{text} is not a port")
    return value


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "run",
        "Runs the operator core, a gateway, and simulated engines with their sidecars as processes on this machine, from the YAML "
        "in PATH. A folder may hold spillway.yaml, which says which backends are simulated.",
        EXAMPLES,
        run,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="folder or file of ModelRoute and ModelBackend documents")
    address = parser.add_argument_group("addresses")
    address.add_argument("--port", type=port, default=8080, help="port of the API; 0 takes a free one")
    address.add_argument(
        "--admin-port", type=port, default=8081, help="port of the operator's admin pages; 0 takes three free ones"
    )
    engines = parser.add_argument_group("simulated engines")
    engines.add_argument(
        "--simulate",
        type=replicas,
        action="append",
        default=[],
        metavar="NAME=N",
        help="simulate N engines for a backend, whatever spillway.yaml says; may be repeated",
    )
    external = parser.add_argument_group("external servers")
    external.add_argument(
        "--secrets-dir", metavar="DIR", help="folder with the keys of external servers, as NAME/KEY or NAMESPACE/NAME/KEY"
    )
    external.add_argument("--ca-file", metavar="FILE", help="PEM file of certificate authorities to trust beside the system's own")
    behaviour = parser.add_argument_group("behaviour")
    behaviour.add_argument("--state-dir", default=".spillway", metavar="DIR", help="folder for logs and last good snapshots")
    behaviour.add_argument(
        "--grace-seconds",
        type=float,
        default=5.0,
        metavar="S",
        help="how long each step of a stop may take before SIGKILL; requests under way have a second less to finish",
    )
    behaviour.add_argument("--quiet", action="store_true", help="no table and no lines about changes; problems are still told")


def run(args: argparse.Namespace) -> int:
    """Run until stopped; the exit code."""
    from spillway.run.process import start

    return start(args)
