"""`spillway sim-engine`: options, and the process around the server."""

from __future__ import annotations

import argparse
import sys

from spillway.options import Parsers, add_command, positive, positive_int

EXAMPLES = """
examples:
  spillway sim-engine --port 9000
  spillway sim-engine --decode-rate 20 --max-running 8 --fault cut:chunks=3,probability=0.1
  curl -s localhost:9000/v1/chat/completions -d '{"model": "sim", "messages": [{"role": "user", "content": "hi"}]}'
  curl -s localhost:9000/fault -d '{"slow": {"factor": 3}}'      make a running engine three times as slow
  curl -s localhost:9000/fault -d '{"slow": null}'               and as fast as before
  curl -s -X DELETE localhost:9000/fault                         end all faults

faults (each with probability=0..1, count=N and scope=requests|all; all but slow):
  delay:seconds=1   take the request in only after so long
  hang              accept and say nothing
  reset             close with RST
  error             answer 500 at once
  cut:chunks=5      end the connection in the middle of the reply
  slow:factor=3     every step takes so many times as long
"""


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "sim-engine",
        "Runs an OpenAI-style engine that makes words of no meaning at a set speed: continuous batching, a KV cache of limited "
        "size, vLLM's metric names, and faults that can be set while it runs.",
        EXAMPLES,
        run,
    )
    address = parser.add_argument_group("address")
    address.add_argument("--host", default="127.0.0.1", help="address to listen on")
    address.add_argument("--port", type=int, default=9000, help="port to listen on; 0 takes a free one")
    address.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="model shown by /v1/models; may be repeated (default: sim)"
    )
    address.add_argument("--strict-model", action="store_true", help="answer 404 for models that are not named by --model")
    speed = parser.add_argument_group("speed and size")
    speed.add_argument("--prefill-rate", type=positive, default=8000.0, metavar="TOKENS/S", help="prompt tokens per second")
    speed.add_argument(
        "--decode-rate", type=positive, default=50.0, metavar="TOKENS/S", help="output tokens per second of one sequence alone"
    )
    speed.add_argument(
        "--half-speed-batch",
        type=positive_int,
        default=64,
        metavar="N",
        help="further sequences at which each runs at half its speed",
    )
    speed.add_argument(
        "--max-running", type=positive_int, default=64, metavar="N", help="sequences that run at once; the rest wait"
    )
    speed.add_argument("--kv-tokens", type=positive_int, default=131072, metavar="N", help="tokens that the KV cache holds")
    behaviour = parser.add_argument_group("behaviour")
    behaviour.add_argument(
        "--fault", action="append", default=[], metavar="NAME[:KEY=VALUE,..]", help="start with a fault; may be repeated"
    )
    behaviour.add_argument(
        "--cold-start-seconds",
        type=float,
        default=0.0,
        metavar="S",
        help="how long it loads its model, so to speak, before it listens",
    )
    behaviour.add_argument("--seed", type=int, default=0, help="seed of the faults' dice")
    behaviour.add_argument(
        "--grace-seconds", type=float, default=1.0, metavar="S", help="how long replies may go on after SIGTERM before they are cut"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM. Exit code 0, 1 if the port is taken, 2 for a fault that cannot be read."""
    from spillway.sim_engine.faults import settings_of
    from spillway.sim_engine.process import serve

    try:
        settings = settings_of(args.fault)
    except ValueError as error:
        print(f"spillway sim-engine: {error}", file=sys.stderr)
        return 2
    return serve(args, settings)
