"""The process of a simulated engine: clock, seed, signals, event loop."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import random
import signal
import sys
import time
from importlib import import_module

from spillway.sim_engine.faults import Faults, FaultSettings
from spillway.sim_engine.model import Engine, EngineSpec
from spillway.sim_engine.server import EngineServer


def serve(args: argparse.Namespace, settings: FaultSettings) -> int:
    """Run an engine as the options say until a signal; the exit code."""
    spec = EngineSpec(
        prefill_tokens_per_second=args.prefill_rate,
        decode_tokens_per_second=args.decode_rate,
        half_speed_batch=args.half_speed_batch,
        max_running=args.max_running,
        kv_tokens=args.kv_tokens,
    )
    faults = Faults(random.Random(args.seed), settings)  # noqa: S311 - dice, not keys
    factory = None
    with contextlib.suppress(ImportError):
        factory = import_module("uvloop").new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(_serve(args, Engine(spec), faults))


async def _serve(args: argparse.Namespace, engine: Engine, faults: Faults) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    models = args.model or ["sim"]
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopped.wait(), max(0.001, args.cold_start_seconds))
        return 0  # told to go before it had begun
    server = EngineServer(engine, faults, models, time.time, strict_model=args.strict_model)  # noqa: TID251 - the root owns the clock
    try:
        port = await server.start(args.host, args.port)
    except OSError as error:
        print(f"spillway sim-engine: cannot listen on {args.host}:{args.port}: {error.strerror}", file=sys.stderr)
        return 1
    spec = engine.spec
    print(
        f"engine {', '.join(models)} at http://{args.host}:{port}: {spec.decode_tokens_per_second:g} tokens/s a sequence, "
        f"{spec.prefill_tokens_per_second:g} prompt tokens/s, {spec.max_running} at once, KV {spec.kv_tokens} tokens",
        flush=True,
    )
    gc.collect()
    gc.freeze()
    await stopped.wait()
    await server.stop(args.grace_seconds)
    return 0
