r"""`make faults`: the whole matrix, or some rows of it, and the table.

examples:
  python -m tests.faults                     every row, at most 15 minutes
  python -m tests.faults --only frozen       rows whose name has this in it
  python -m tests.faults --seed 7 --short    a tenth of the time, for a look
  python -m tests.faults --soak 30           half an hour of mixed load and faults of every kind
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import tests.faults.rows  # noqa: F401 - fills ROWS
from tests.faults.bench import RATE, ROWS, SOAK, Bench, Result, Row, judge
from tests.faults.load import Load
from tests.faults.table import describe, table
from tests.faults.world import Shape, World

SHORT = 0.1
SHORTEST_SECONDS = 6.0
RECOVERY_RATE = 40.0


async def run_row(row: Row, world: World, seed: int, seconds: float, rate: float = RATE) -> Result:
    """One row in a world that is well, and left so."""
    began = time.monotonic()
    load = Load(world.gateway_ports, random.Random(seed))
    bench = Bench(world, load, random.Random(seed ^ 0x5F5F), seconds, rate)
    known = world.tracebacks()
    measured = await row.run(bench)
    lags = load.lags
    async with bench.sending(rate=min(rate, RECOVERY_RATE)):  # an endpoint that was down is well once a request has found it so
        await world.heal()
    load.close_idle()
    leaks = await world.leaks()
    leaks += [f"{name}: {count} tracebacks in its log" for name, count in world.tracebacks().items() if count > known.get(name, 0)]
    return judge(row, seed, time.monotonic() - began, measured, leaks, load.strays, lags)


async def run_rows(rows: list[Row], seed: int, folder: Path, *, rate: float = RATE, short: bool = False) -> list[Result]:
    """All rows, one world for each shape."""
    results: list[Result] = []
    shapes: list[Shape] = []
    for row in rows:
        if row.shape not in shapes:
            shapes.append(row.shape)
    for number, shape in enumerate(shapes):
        place = folder / f"world-{number}"
        place.mkdir()
        async with World(place, seed + number, shape) as world:
            for row in rows:
                if row.shape == shape:
                    before = world.memory()
                    seconds = max(SHORTEST_SECONDS, row.seconds * SHORT) if short else row.seconds
                    result = await run_row(row, world, seed, seconds, rate)
                    print(describe(result, before, world.memory()), flush=True)
                    results.append(result)
                    if result.wrong:
                        text = "\n\n".join(f"{request!r}\n{request.body!r}" for request in result.wrong)
                        (folder / f"wrong-{len(results)}.txt").write_text(text)
    return results


def chosen(args: argparse.Namespace) -> list[Row]:
    """The rows to run."""
    if args.soak is not None:
        return [SOAK[0].lasting(args.soak * 60.0)]
    return [row for row in ROWS if not args.only or any(word in row.name for word in args.only)]


def main(argv: list[str]) -> int:
    """1 where something that must never be was."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=1, help="of load, faults and places")
    parser.add_argument(
        "--rate", type=float, default=RATE, help="requests a second, where a row does not offer multiples of the capacity"
    )
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT", help="rows whose name has this in it; may be repeated"
    )
    parser.add_argument("--short", action="store_true", help="a tenth of the time for each row")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="mixed load and faults of every kind for so long")
    parser.add_argument("--list", action="store_true", help="the rows, their time and their bar")
    parser.add_argument("--keep", action="store_true", help="keep logs and state also where all is well")
    args = parser.parse_args(argv)
    if args.list:
        print("\n".join(f"{row.seconds:5.0f} s  {row.name}: {row.bar}" for row in ROWS))
        return 0
    rows = chosen(args)
    if not rows:
        parser.error("no such row; --list shows them")
    folder = Path(tempfile.mkdtemp(prefix="spillway-faults-"))
    gc.collect()
    gc.freeze()
    factory = None
    with contextlib.suppress(ImportError):
        factory = importlib.import_module("uvloop").new_event_loop
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what was started
    began = time.monotonic()
    with asyncio.Runner(loop_factory=factory) as runner:
        results = runner.run(run_rows(rows, args.seed, folder, rate=args.rate, short=args.short))
    print(f"\n{table(results)}\n\n{time.monotonic() - began:.0f} s in all")
    sound = all(result.sound for result in results)
    if sound and not args.keep:
        shutil.rmtree(folder)
    else:
        print(f"logs and state: {folder}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
