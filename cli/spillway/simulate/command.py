"""`spillway simulate`: options, and what is printed."""

from __future__ import annotations

import argparse

from spillway.options import Parsers, add_command, positive, positive_int

EXAMPLES = """
examples:
  spillway simulate                                       16 routers, 16 endpoints, load 0.8: the policies beside each other
  spillway simulate --shared-prefix --seeds 3             requests that share the starts of their prompts
  spillway simulate --policy ours --fault all             what each fault does, against the healthy run
  spillway simulate --trace day.csv --plot ttft.html      a recorded trace, and a plot
  spillway simulate --endpoints 10000 --seeds 1 --seconds 20 --policy ours

  spillway simulate --scaling                             how many replicas there would have been, by several deciders
  spillway simulate --scaling --scene morning --plot replicas.html

A trace has the columns arrival_s,input_tokens,output_tokens,prefix_id, and may have prefix_tokens.
A policy of routing of your own: --policy FILE.py:CLASS, with a subclass of spillway.simulate.policies.base.Policy.
"""
SCENES = ("steady", "edge", "step", "sine", "outage", "lying", "morning", "step-coupled", "first-coupled")
FAULTS = ("zero", "frozen", "nan", "lost", "old", "slow", "failing")


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    parser = add_command(
        subparsers,
        "simulate",
        "Runs traffic through models of engines and several policies, one of which is the code that the proxies run, and shows what clients "
        "would have seen.",
        EXAMPLES,
        run,
    )
    scene = parser.add_argument_group("scene")
    scene.add_argument("--routers", type=positive_int, default=16, metavar="N", help="routers, each with its own picture")
    scene.add_argument("--endpoints", type=positive_int, default=16, metavar="N", help="engines")
    scene.add_argument(
        "--slow-endpoints", type=_count, default=None, metavar="N", help="engines at half speed (default: an eighth of them)"
    )
    scene.add_argument(
        "--report-interval",
        type=_seconds,
        default=0.0,
        metavar="S",
        help="between reports to all routers; 0: only with replies, as it is",
    )
    scene.add_argument("--max-running", type=positive_int, default=64, metavar="N", help="sequences that an engine decodes at once")
    scene.add_argument(
        "--kv-tokens", type=positive_int, default=160_000, metavar="N", help="tokens that an engine's KV cache holds"
    )
    scene.add_argument("--fault", choices=(*FAULTS, "all"), help="what goes wrong from the end of the warm-up on")
    traffic = parser.add_argument_group("traffic")
    traffic.add_argument(
        "--load", type=positive, default=None, metavar="SHARE", help="of what the engines can do at most (default: 0.8)"
    )
    traffic.add_argument("--shared-prefix", action="store_true", help="prompts that share their starts")
    traffic.add_argument("--prefixes", type=positive_int, default=400, metavar="N", help="with --shared-prefix: different starts")
    traffic.add_argument(
        "--trace",
        metavar="FILE",
        help="requests from a CSV file, when they came; with --load faster or slower, caches not reckoned with",
    )
    traffic.add_argument("--emit-trace", metavar="FILE", help="write the first seed's requests to a CSV file")
    traffic.add_argument("--seconds", type=positive, default=60.0, metavar="S", help="measured time")
    traffic.add_argument("--warmup", type=_seconds, default=10.0, metavar="S", help="time before it that is not measured")
    scaling = parser.add_argument_group(
        "scaling",
        "With --scaling, replicas follow a load of hours, by the operator's own decider and by others. The replicas are one fluid queue, which "
        "leaves out what routing does; in scenes that end in -coupled, requests go through the routers and engines that are "
        "simulated otherwise. Of the options above none counts then.",
    )
    scaling.add_argument(
        "--scaling", action="store_true", help="simulate how many replicas there are, in place of where requests go"
    )
    scaling.add_argument(
        "--scene",
        action="append",
        default=[],
        choices=SCENES,
        metavar="NAME",
        help=f"what happens, one of {', '.join(SCENES)}; may be repeated (default: all)",
    )
    scaling.add_argument(
        "--cold-start",
        action="append",
        default=[],
        type=positive,
        metavar="S",
        help="until a replica that was asked for takes requests; may be repeated (default: 120)",
    )
    scaling.add_argument("--check", action="store_true", help="exit 1 where a claim of ours does not hold in these runs")
    runs = parser.add_argument_group("runs")
    runs.add_argument(
        "--policy",
        action="append",
        default=[],
        metavar="NAME",
        help="round-robin, random, p2c, least-request, queue-kv-1s, queue-kv-50ms, prefix-map, ours, oracle or FILE.py:CLASS; with --scaling: "
        "ceiling, hpa-like, kpa-like, ours, ours-forecast; may be repeated (default: all)",
    )
    runs.add_argument("--seeds", type=positive_int, default=3, metavar="N", help="runs of each policy, each with its own seed")
    runs.add_argument("--seed", type=int, default=0, metavar="N", help="the first seed")
    runs.add_argument("--jobs", type=positive_int, default=None, metavar="N", help="processes (default: one a core)")
    output = parser.add_argument_group("output")
    output.add_argument("--slo-ttft", type=positive, default=2.0, metavar="S", help="time to first token that counts as good")
    output.add_argument("--json", action="store_true", help="print all figures of each run as JSON")
    output.add_argument(
        "--plot",
        type=_plot,
        metavar="FILE",
        help="write a plot, .html or .svg: times to first token, or replicas and waits over time",
    )


def _count(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below zero")
    return value


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def _plot(text: str) -> str:
    if not text.endswith((".html", ".svg")):
        raise argparse.ArgumentTypeError(f"{text} ends neither in .html nor in .svg")
    return text


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 1 where a file cannot be read or written; 2 for a policy that does not exist."""
    if args.scaling:
        from spillway.simulate.scaling.show import simulate_scaling

        return simulate_scaling(args)
    from spillway.simulate.show import simulate

    return simulate(args)
