"""`python -m bench`: our gateway beside other proxies, then our own path with each feature on and off. See docs/benchmarks.md."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time

from bench import decisions, interpreter, machine, measure, ours, peers, report
from bench.peers import OUT


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="Our proxy beside others, each on one core, turn by turn.")
    parser.add_argument("--quick", action="store_true", help="one round of each cell: does it run, and roughly how fast")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each cell; the three least disturbed count (default 7)")
    parser.add_argument(
        "--only", default=",".join([*peers.PEERS, report.OURS]), help="peers, comma-separated (default all: %(default)s)"
    )
    parser.add_argument("--no-features", action="store_true", help="leave out our path with each feature on and off")
    parser.add_argument("--no-memory", action="store_true", help="leave out memory, which starts each peer once more, alone")
    parser.add_argument(interpreter.OPTION, help=interpreter.HELP)
    return parser.parse_args()


def main() -> int:
    options = arguments()
    interpreter.become(options.python)
    count = 1 if options.quick else options.rounds
    proxy_core, load_core = machine.cores()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    measure.build()
    names = options.only.split(",")
    found, missing = peers.available([name for name in names if name != report.OURS])
    machine.ahead_of_other_work()
    results, features = report.Results(), report.Results()
    out = (OUT / "results.jsonl").open("w")

    def sink(into: report.Results) -> measure.Emit:
        def emit(peer: str, number: int, cell: str, data: measure.Cell) -> None:
            into.add(peer, cell, data)
            out.write(json.dumps({"peer": peer, "round": number, "cell": cell, **data}) + "\n")
            shown = {
                key: data[key] for key in ("rps", "events_per_s", "cpu", "lat_us", "idle_mb", "stream_kb", "other") if key in data
            }
            print(f"{cell:7} {number} {peer:26} {json.dumps(shown)}", file=sys.stderr, flush=True)

        return emit

    (OUT / "access.log").unlink(missing_ok=True)
    began = time.monotonic()
    operator = None
    with measure.engine(load_core):
        try:
            if report.OURS in names:
                operator = ours.operator(load_core)
                try:
                    ours.compiled()
                except peers.CannotHaveError as error:
                    missing["ours, compiled"] = str(error)
                found += [ours.gateway(), ours.interpreted()]
            with measure.running(found, proxy_core, missing) as pids:
                measure.rounds(found, pids, count, ("rate", "low", "stream", "prompt"), load_core, sink(results))
            if not options.no_memory:
                for peer in found:
                    if peer.command and peer.name not in missing:
                        measure.memory(peer, proxy_core, load_core, sink(results))
            left_out: dict[str, str] = {}
            if report.OURS in names and report.OURS not in missing and not options.no_features:
                variants, left_out = ours.supported()
                named = [ours.gateway(one.name, one.options, ours.FIRST_PORT + place + 1) for place, one in enumerate(variants)]
                named.append(ours.gateway("before inbound listeners", (), ours.FIRST_PORT + len(named) + 1, model="guarded"))
                named.append(ours.sidecar("an inbound listener by itself", 2))
                guards = [ours.sidecar(f"guard {place}", place) for place in (0, 1)]
                with measure.running(guards, load_core, left_out), measure.running(named, proxy_core, left_out) as pids:
                    measure.rounds(named, pids, count, ("rate", "low", "stream"), load_core, sink(features))
        finally:
            if operator:
                machine.stop([operator])
            out.close()
    text = written(results, features, missing, left_out, count, time.monotonic() - began)
    (OUT / "report.md").write_text(text)
    print(text)
    return 0


def written(
    results: report.Results, features: report.Results, missing: dict[str, str], left_out: dict[str, str], count: int, seconds: float
) -> str:
    where = (
        f"{machine.describe()}, {interpreter.describe()}; {count} round{'s' if count > 1 else ''}, interleaved, {seconds:.0f} s."
    )
    parts = [where, report.figures(results, report.COLUMNS, results.peers, "proxy", missing)]
    if any(name == report.OURS for name in results.peers):
        parts.append(report.bars(results, missing))
        parts.append(decisions.table())
    if features.peers or left_out:
        parts.append(report.figures(features, report.FEATURE_COLUMNS, features.peers, "ours", left_out))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.exit(main())
