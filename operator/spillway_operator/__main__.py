"""The composition root: settings -> parts -> run. The only owner of clocks, chance, environment and signals in this package.

    python -m spillway_operator --source files --path DIR --endpoints-file F

Order of a start: the source reads everything into the store; the core reconciles it into the first snapshot; then the ports
open. So the first proxy that connects finds a listener and a whole snapshot. A stop goes the other way round.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, disable_created_metrics

from spillway_operator.admin import AdminServer
from spillway_operator.discovery.auth import LoopbackAuthenticator
from spillway_operator.discovery.server import DiscoveryServer
from spillway_operator.loads.store import LoadStore
from spillway_operator.policies.hosts import LOOPBACK, AllowList
from spillway_operator.reconcile.core import Core
from spillway_operator.reconcile.metrics import Metrics, StreamCollector, WorldCollector
from spillway_operator.reconcile.status import StatusPass, StoreSink
from spillway_operator.reconcile.world import World
from spillway_operator.settings import ListenSettings, Settings, SourceSettings, StatusSettings
from spillway_operator.snapshot.state import SnapshotState
from spillway_operator.sources.base import Source
from spillway_operator.sources.files import FileSource
from spillway_operator.store import Store

_log = logging.getLogger("spillway_operator")

_LIST_SEPARATOR = ","


def _port(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port: give one between 0 and 65535")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r}") from None
    if not 0 < number < 86_400:
        raise argparse.ArgumentTypeError(f"{text} is no interval: give seconds above 0")
    return number


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from options; each option's default comes from `SPILLWAY_<OPTION>`. Exits with a message for what is wrong."""
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m spillway_operator",
        description="The operator core: reads resources, serves snapshots to proxies, takes in load, sets weights, tells status.",
        epilog="Every option is also an environment variable: --admin-port is SPILLWAY_ADMIN_PORT; lists are separated by commas.",
    )

    def option(name: str, text: str, **kwargs: Any) -> None:
        value = environment.get("SPILLWAY_" + name.upper().replace("-", "_"))
        if value is not None and "action" not in kwargs:
            kwargs["default"] = value
        parser.add_argument(f"--{name}", help=text, **kwargs)

    option("source", "where resources come from (default: files)", choices=("files",), default=defaults.source.kind)
    option("path", "a folder of resource files, or one file; may be given several times", action="append", metavar="PATH")
    option("endpoints-file", "JSON file with the endpoints of pods and service backends, watched", type=Path, metavar="FILE")
    option("allow-host", "host, address or network that external backends may reach by plain http; adds to loopback", action="append",
           metavar="HOST")  # fmt: skip
    option("host", "address to listen on (default: %(default)s)", default=defaults.listen.host)
    option("admin-port", "port of /healthz, /metrics, /info, /config and /api/v1 (default: %(default)s)", type=_port,
           default=defaults.listen.admin_port)  # fmt: skip
    option(
        "discovery-port", "port of the stream to proxies (default: %(default)s)", type=_port, default=defaults.listen.discovery_port
    )
    option("status-interval", "seconds between two writes of load figures of an object (default: %(default)s)", type=_seconds,
           default=defaults.status.figures_interval_seconds)  # fmt: skip
    option("log-level", "debug, info, warning or error (default: %(default)s)", choices=("debug", "info", "warning", "error"),
           default=defaults.log_level)  # fmt: skip
    options = parser.parse_args(arguments)
    paths, allowed = (
        given if given is not None else [part for part in environment.get(variable, "").split(_LIST_SEPARATOR) if part]
        for given, variable in ((options.path, "SPILLWAY_PATH"), (options.allow_host, "SPILLWAY_ALLOW_HOST"))
    )
    if not paths:
        parser.error("--path is missing: name a folder or file with resources")
    try:
        AllowList.of(allowed)
    except ValueError as error:
        parser.error(f"--allow-host: {error}")
    return Settings(
        source=SourceSettings(
            kind=options.source,
            paths=tuple(Path(path) for path in paths),
            endpoints_file=options.endpoints_file,
            allowed_hosts=(*LOOPBACK, *allowed),
        ),
        listen=ListenSettings(host=options.host, admin_port=options.admin_port, discovery_port=options.discovery_port),
        status=StatusSettings(figures_interval_seconds=options.status_interval),
        log_level=options.log_level,
    )


def _now() -> datetime:
    return datetime.now(UTC)


class Operator:
    """All parts of one process, put together."""

    def __init__(self, settings: Settings, *, epoch: int) -> None:
        self._settings = settings
        self._clock = time.monotonic
        rng = random.Random()  # noqa: S311 - jitter, not keys
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        metrics = Metrics(registry)
        self.store = Store()
        self.discovery = DiscoveryServer(
            authenticator=LoopbackAuthenticator(),
            clock=self._clock,
            rng=rng,
            settle_seconds=settings.discovery.settle_seconds,
            max_connections=settings.discovery.max_connections,
        )
        world = World(
            store=self.store,
            loads=LoadStore(
                interval_seconds=settings.loads.interval_seconds,
                stale_intervals=settings.loads.stale_intervals,
                max_series=settings.loads.max_series,
                on_outcome=metrics.count_report,
            ),
            publisher=self.discovery,
            allowed_hosts=AllowList.of(settings.source.allowed_hosts),
            state=SnapshotState(version=f"{epoch}.0", epoch=epoch),
        )
        self.core = Core(
            world=world,
            status=StatusPass(
                sink=StoreSink(self.store),
                wall_clock=_now,
                figures_interval_seconds=settings.status.figures_interval_seconds,
                low_pressure=settings.weights.low,
            ),
            metrics=metrics,
            clock=self._clock,
            rng=rng,
            pace=settings.pace,
            policy=settings.weights,
            bounds=settings.pressure,
        )
        registry.register(WorldCollector(world, self.core.queue))
        registry.register(StreamCollector(self.discovery.info))
        self.store.watch(self.core.on_change)
        self.discovery.attach(self.core)
        self.source: Source = FileSource(
            self.store,
            paths=settings.source.paths,
            endpoints_file=settings.source.endpoints_file,
            clock=self._clock,
            wall_clock=_now,
            pace=settings.source.pace,
        )
        self.admin = AdminServer(
            store=self.store, state=lambda: world.state, ready=self._not_ready, info=self.info, registry=registry
        )
        self._world = world
        self._started_at = self._clock()

    def _not_ready(self) -> str | None:
        return None if self.core.published else "no snapshot is out yet"

    def info(self) -> dict[str, Any]:
        """Every part's."""
        return {
            "version": metadata.version("spillway"),
            "uptime_seconds": round(self._clock() - self._started_at, 1),
            "store": self.store.info(),
            "source": self.source.info(),
            "core": self.core.info(),
            "loads": self._world.loads.info(),
            "discovery": self.discovery.info(),
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set. Raises OSError when a port is taken."""
        listen = self._settings.listen
        await self.source.start()
        self.core.step(self._clock())
        loop = asyncio.create_task(self.core.run(), name="core")
        try:
            discovery_port = await self.discovery.start(listen.host, listen.discovery_port)
            admin_port = await self.admin.start(listen.host, listen.admin_port)
            _log.info(
                "operator: ready; admin on http://%s:%d, discovery on port %d, snapshot %s, %s",
                listen.host, admin_port, discovery_port, self._world.state.version, self.store.info(),
            )  # fmt: skip
            stopped = asyncio.create_task(stop.wait())
            done, _ = await asyncio.wait((stopped, loop), return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            if loop in done:
                loop.result()
        finally:
            await self._stop(loop)

    async def _stop(self, loop: asyncio.Task[None]) -> None:
        _log.info("operator: stopping; proxies go on with what they have")
        try:
            async with asyncio.timeout(self._settings.shutdown_seconds):
                await self.source.stop()
                loop.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await loop
                await self.discovery.stop()
                await self.admin.stop()
        except TimeoutError:
            _log.warning("operator: not everything stopped within %.0f s", self._settings.shutdown_seconds)


async def serve(settings: Settings) -> None:
    """Runs the operator until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    # Without a cluster's lease the epoch is the millisecond of the start: it rises with every restart, however quick, so that no
    # version is given out twice, and proxies refuse an older one.
    await Operator(settings, epoch=int(_now().timestamp() * 1000)).run(stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process. 0 after a signal, 1 when a port is taken, 2 for wrong options."""
    disable_created_metrics()  # type: ignore[no-untyped-call]
    settings = parse(sys.argv[1:] if arguments is None else arguments, os.environ)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr, datefmt="%H:%M:%S"
    )
    try:
        import uvloop  # noqa: PLC0415 - optional, and only here

        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    except ImportError:
        runner = asyncio.Runner()
    with runner:
        try:
            runner.run(serve(settings))
        except OSError as error:
            _log.error("operator: cannot listen: %s", error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
