"""The composition root: settings -> parts -> run. The only owner of clocks, chance, environment and signals in this package.

    python -m spillway_operator --source files --path DIR --endpoints-file F
    python -m spillway_operator --source kubernetes

Order of a start: the source reads everything into the store; the core reconciles it into the first snapshot; then the ports
open. So the first proxy that connects finds a listener and a whole snapshot. A stop goes the other way round. In a cluster
(`cluster`) the admin port opens first, for the kubelet's probes, and the discovery port is open on the replica that leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, disable_created_metrics

from spillway_operator.admin import AdminServer
from spillway_operator.discovery.auth import LoopbackAuthenticator
from spillway_operator.discovery.server import DiscoveryServer
from spillway_operator.loads.store import LoadStore
from spillway_operator.options import parse
from spillway_operator.policies.hosts import AllowList
from spillway_operator.reconcile.core import Core
from spillway_operator.reconcile.metrics import Metrics, StreamCollector, WorldCollector
from spillway_operator.reconcile.scaling import ScalingLoop
from spillway_operator.reconcile.signals import SignalCollector
from spillway_operator.reconcile.status import StatusPass, StoreSink
from spillway_operator.reconcile.world import World
from spillway_operator.settings import Settings
from spillway_operator.snapshot.state import SnapshotState
from spillway_operator.sources.base import Source
from spillway_operator.sources.file_targets import FileTargets
from spillway_operator.sources.files import FileSource
from spillway_operator.store import Store
from spillway_operator.webhook import InjectionSource, WebhookServer, backends_of
from spillway_wire import VERSION

if TYPE_CHECKING:
    from spillway_operator.cluster import Cluster

_log = logging.getLogger("spillway_operator")


class StartError(Exception):
    """The process cannot do what it was told to."""


def _always() -> bool:
    return True


def _now() -> datetime:
    return datetime.now(UTC)


class Operator:
    """All parts of one process, put together."""

    def __init__(self, settings: Settings, *, store: Store, rng: random.Random, epoch: int, cluster: Cluster | None = None) -> None:
        self._settings = settings
        self._clock = time.monotonic
        self._cluster = cluster
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        metrics = Metrics(registry)
        self.store = store
        self.discovery = DiscoveryServer(
            authenticator=LoopbackAuthenticator() if cluster is None else cluster.authenticator,
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
            publisher=self.discovery if cluster is None else cluster.gate(self.discovery),
            allowed_hosts=AllowList.of(settings.source.allowed_hosts),
            state=SnapshotState(version=f"{epoch}.0", epoch=epoch),
            wall_clock=_now,
        )
        file_targets = FileTargets(settings.source.targets_file, settings.source.scale_file)
        self.core = Core(
            world=world,
            scaling=ScalingLoop(
                world,
                file_targets if cluster is None else cluster.targets,
                leads=_always if cluster is None else cluster.leads,
                on_change=metrics.count_scaling,
            ),
            status=self._status_pass(),
            metrics=metrics,
            clock=self._clock,
            rng=rng,
            pace=settings.pace,
            policy=settings.weights,
            bounds=settings.pressure,
            alone=cluster is None,
        )
        registry.register(WorldCollector(world, self.core.queue))
        registry.register(SignalCollector(world, self._clock))
        registry.register(StreamCollector(self.discovery.info))
        self.store.watch(self.core.on_change)
        self.discovery.attach(self.core)
        if cluster is not None:
            cluster.attach(self.core)
            registry.register(cluster.collector())
        self.source: Source = cluster.source if cluster is not None else self._file_source()
        self.admin = AdminServer(
            store=self.store,
            state=lambda: world.state,
            ready=self._not_ready,
            leads=lambda: None if cluster is None else cluster.not_leading(),
            info=self.info,
            registry=registry,
        )
        self.webhook = self._webhook(cluster) if cluster is not None and settings.injection.config_file is not None else None
        if self.webhook is not None:
            registry.register(self.webhook)
        self._world = world
        self._started_at = self._clock()

    def _status_pass(self) -> StatusPass:
        fields: dict[str, Any] = {
            "wall_clock": _now,
            "figures_interval_seconds": self._settings.status.figures_interval_seconds,
            "low_pressure": self._settings.weights.low,
        }
        return StatusPass(sink=StoreSink(self.store), **fields) if self._cluster is None else self._cluster.status_pass(**fields)

    def _webhook(self, cluster: Cluster) -> WebhookServer:
        mine = self._settings.injection
        try:
            source = InjectionSource(Path(mine.config_file or ""), mine.ca_file)
        except (OSError, ValueError) as error:
            raise StartError(f"--injection-config: {error}") from error
        return WebhookServer(source=source, backends=backends_of(self.store), certificate=cluster.certificate)

    def _file_source(self) -> FileSource:
        settings = self._settings.source
        return FileSource(
            self.store,
            paths=settings.paths,
            endpoints_file=settings.endpoints_file,
            clock=self._clock,
            wall_clock=_now,
            pace=settings.pace,
        )

    def _not_ready(self) -> str | None:
        if self._cluster is not None and (missing := self._cluster.not_ready()) is not None:
            return missing
        return None if self.core.published else "no snapshot is out yet"

    def info(self) -> dict[str, Any]:
        """Every part's."""
        return {
            "version": VERSION,
            "uptime_seconds": round(self._clock() - self._started_at, 1),
            "store": self.store.info(),
            "source": self.source.info(),
            "core": self.core.info(),
            "loads": self._world.loads.info(),
            "discovery": self.discovery.info(),
            **({} if self._cluster is None else {"cluster": self._cluster.info()}),
            **({} if self.webhook is None else {"webhook": self.webhook.info()}),
        }

    async def run(self, stop: asyncio.Event) -> None:
        """Runs until `stop` is set. Raises OSError when a port is taken."""
        await (self._run_alone(stop) if self._cluster is None else self._run_in_cluster(stop, self._cluster))

    async def _run_alone(self, stop: asyncio.Event) -> None:
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
            await _until(stop, loop)
        finally:
            await self._stop(loop)

    async def _run_in_cluster(self, stop: asyncio.Event, cluster: Cluster) -> None:
        listen = self._settings.listen
        admin_port = await self.admin.start(listen.host, listen.admin_port)
        _log.info("operator: started; admin on http://%s:%d, API server %s", listen.host, admin_port, cluster.api.info()["server"])
        if self.webhook is not None:
            webhook_port = await self.webhook.start(listen.host, self._settings.injection.port)
            _log.info("operator: webhook on port %d", webhook_port)
        loop = asyncio.create_task(self._core_when_read(cluster), name="core")
        terms = asyncio.create_task(cluster.run(), name="cluster")
        try:
            await _until(stop, loop, terms)
        finally:
            terms.cancel()
            await asyncio.wait({terms})
            await self._stop(loop)

    async def _core_when_read(self, cluster: Cluster) -> None:
        """The core begins with everything at once, so that nothing is published of a part."""
        await cluster.source.read()
        await self.core.run()

    async def _stop(self, loop: asyncio.Task[None]) -> None:
        _log.info("operator: stopping; proxies go on with what they have")
        try:
            async with asyncio.timeout(self._settings.shutdown_seconds):
                if self._cluster is not None:
                    await self._cluster.stop()
                else:
                    await self.source.stop()
                loop.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await loop
                if self._cluster is None:
                    await self.discovery.stop()
                if self.webhook is not None:
                    await self.webhook.stop()
                await self.admin.stop()
        except TimeoutError:
            _log.warning("operator: not everything stopped within %.0f s", self._settings.shutdown_seconds)


async def _until(stop: asyncio.Event, *tasks: asyncio.Task[None]) -> None:
    """Until `stop` is set. Raises what a task died of."""
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait((stopped, *tasks), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    for task in done - {stopped}:
        task.result()


async def _cluster(settings: Settings, store: Store, rng: random.Random) -> Cluster:
    """The parts for a cluster, imported when they are needed. Raises `StartError`."""
    from spillway_operator.cluster import Cluster  # noqa: PLC0415 - kopf and the Kubernetes client are 25 MiB
    from spillway_operator.kube.access import AccessError, KubeAccess  # noqa: PLC0415

    try:
        access = await KubeAccess.load(settings.cluster.kubeconfig, settings.cluster.context)
        return Cluster(
            access,
            settings,
            store=store,
            identity=settings.cluster.identity or f"{socket.gethostname()}_{rng.getrandbits(32):08x}",
            clock=time.monotonic,
            wall_clock=_now,
            rng=rng,
        )
    except (AccessError, OSError) as error:
        raise StartError(str(error)) from error


async def serve(settings: Settings) -> None:
    """Runs the operator until SIGTERM or SIGINT. Raises OSError when a port is taken, and `StartError`."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = Store()
    rng = random.Random()  # noqa: S311 - jitter, not keys
    cluster = await _cluster(settings, store, rng) if settings.source.kind == "kubernetes" else None
    # Without a cluster's lease the epoch is the millisecond of the start: it rises with every restart, however quick, so that no
    # version is given out twice, and proxies refuse an older one. In a cluster each term brings its own.
    epoch = int(_now().timestamp() * 1000) if cluster is None else 0
    await Operator(settings, store=store, rng=rng, epoch=epoch, cluster=cluster).run(stop)


def main(arguments: Sequence[str] | None = None) -> int:
    """The process. 0 after a signal, 1 when a port is taken or the cluster cannot be found, 2 for wrong options."""
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
        except StartError as error:
            _log.error("operator: cannot start: %s", error)
            return 1
        except OSError as error:
            _log.error("operator: cannot listen: %s", error)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
