"""Composition root of a proxy: settings, then parts, then run. The only place that owns the clock, randomness and environment."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import resource
import signal
import ssl
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from spillway_sidecar.admin import AdminPages, AdminServer
from spillway_sidecar.config.client import DiscoveryClient, operator_tls
from spillway_sidecar.config.last_good import LastGoodRefusedError, LastGoodStore
from spillway_sidecar.config.snapshot import Snapshot
from spillway_sidecar.drain import drain, drained, leave
from spillway_sidecar.engines import GpuLoad
from spillway_sidecar.guard import Guard
from spillway_sidecar.loop_watch import LoopWatch
from spillway_sidecar.proxy.downstream import accept
from spillway_sidecar.proxy.listener import MAX_TURNED_AWAY, Listener
from spillway_sidecar.proxy.route import RouteSite
from spillway_sidecar.proxy.swap import Swapper
from spillway_sidecar.proxy.sweep import run_sweeps
from spillway_sidecar.reporting import EngineSample, HostLoad, Reporter, RouterFigures
from spillway_sidecar.secrets import SecretResolver
from spillway_sidecar.settings import Settings, parse
from spillway_sidecar.telemetry.accesslog import AccessLog
from spillway_sidecar.telemetry.decisions import DecisionRing
from spillway_sidecar.telemetry.exposition import HoldingCollector, RecoveryCollector, TrafficCollector
from spillway_wire import VERSION
from spillway_wire.messages import Node, Report
from spillway_wire.names import Role
from spillway_wire.snapshot import Cluster, SecretKeyRef, encode_resource

_LOG = logging.getLogger("spillway.sidecar")
BACKLOG = 4096
ASYNCIO_BACKLOG = 128  # asyncio's own loop tries so many accepts in a row, also when there is no descriptor left
OTHER_DESCRIPTORS = 64 + MAX_TURNED_AWAY  # what is neither a client's connection nor one to an endpoint
# Exchanges free themselves by reference count; the collector only looks for the rare cycle.
GC_THRESHOLDS = (50_000, 20, 50)
REFRESH_SECONDS = 2.0


class Proxy:
    """A proxy's parts, put together."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = time.monotonic
        self.boot_id = os.urandom(6).hex()
        self.registry = CollectorRegistry()
        self.decisions = DecisionRing(settings.decisions) if settings.decisions > 0 else None
        self.access_log = AccessLog(settings.access_log) if settings.access_log else None
        self.secrets = SecretResolver(environ=os.environ, directory=settings.secrets_dir, clock=self.clock)
        self.route = RouteSite(
            clock=self.clock,
            id_prefix=f"{self.boot_id}-",
            limits=settings.client_limits,
            decisions=self.decisions,
            access_log=self.access_log,
            wall_clock=time.time,  # noqa: TID251 - the composition root
        )
        rng = random.Random()  # noqa: S311 - spreads load, guards nothing
        self.guard = Guard(settings, self.boot_id, self.clock, rng) if settings.role is Role.SIDECAR else None
        self.swapper = Swapper(self.route, self._credential, self._tls_context)
        self.watch = LoopWatch(self._listeners())
        if self.guard is not None:
            self.guard.late_seconds = lambda: self.watch.ladder.late_total_seconds
        self._tls: ssl.SSLContext | None = None
        self._goodbye: asyncio.Future[None] | None = None
        self.client = self._discovery(rng)
        self.reporter = self._reporter()
        self.admin = AdminServer(
            AdminPages(
                ready=self._ready,
                registry=self.registry,
                config=self._config,
                info=self.info,
                explain=self._explain,
                decisions=self._decisions,
                drain=self._leave,
                drained=lambda: drained(self._listeners(), settings.drain_seconds, self.clock, engine_up=self._engine_up),
            ),
            settings.admin_host,
            settings.admin_port,
        )
        if settings.metrics:
            self.registry.register(TrafficCollector(self.route.stats, self._gauges, self.route.diversions))
            self.registry.register(RecoveryCollector(self.route.stats, self.route.ejections))
            self.registry.register(HoldingCollector(self.route.waiting.held_figures))
            if self.guard is not None:
                self.guard.register(self.registry, self.reporter.current_load)

    # --- parts

    def _discovery(self, rng: random.Random) -> DiscoveryClient | None:
        settings = self.settings
        if settings.operator is None:
            return None
        node = Node(
            id=settings.node_id,
            role=settings.role,
            boot_id=self.boot_id,
            namespace=settings.namespace,
            pod=settings.pod,
            version=VERSION,
        )
        ca_file, token_file = settings.operator_ca_file, settings.operator_token_file
        return DiscoveryClient(
            settings.operator,
            node,
            self.apply,
            self._set_routers,
            self._last_good(),
            rng,
            self.clock,
            token=None if token_file is None else lambda: token_file.read_text(encoding="ascii").strip(),
            tls=None if ca_file is None else lambda: operator_tls(ca_file),
        )

    def _last_good(self) -> LastGoodStore | None:
        folder = self.settings.state_dir
        if folder is None:
            return None
        folder.mkdir(parents=True, exist_ok=True)
        return LastGoodStore(folder / "last-good.json", time.time)  # noqa: TID251

    def _start_alone(self) -> None:
        """Without an operator's address: what was saved last is all there is."""
        store = self._last_good()
        if self.client is None and store is not None:
            try:
                self.apply(store.load())
            except LastGoodRefusedError as error:
                _LOG.warning("no operator was named and there is no last good snapshot: %s", error)

    def _reporter(self) -> Reporter:
        route, guard = self.route, self.guard
        figures = RouterFigures(
            traffic=route.stats.traffic,
            refused=route.stats.refused,
            demand=route.demand,
            problems=lambda: (*self.secrets.problems(), *self.swapper.problems()),
            diversions=route.diversions,
        )
        reporter = Reporter(
            self.boot_id,
            clock=self.clock,
            send=self._send,
            router=figures,
            inbound=(lambda: guard.site) if guard is not None else None,
            engine=guard.probe.sample if guard is not None else lambda _: EngineSample(),
            gpu=guard.gpu.sample if guard is not None else lambda _: GpuLoad(),
            host=guard.host.sample if guard is not None else lambda _: HostLoad(),
        )
        if guard is not None:
            guard.load_header = reporter.load_header
        route.waiting.woken = reporter.at_once
        return reporter

    def _send(self, build: Callable[[], Report]) -> bool:
        """Leaves a report for the operator if the stream is up."""
        if self.client is None or not self.client.connected:
            return False
        self.client.send_report(build())
        return True

    def apply(self, snapshot: Snapshot) -> None:
        """Puts a snapshot in force."""
        self.swapper.swap(snapshot.version, snapshot.resources)
        self.secrets.retain(
            {
                (r.name, r.external.auth)
                for r in snapshot.resources.values()
                if isinstance(r, Cluster) and r.external is not None and r.external.auth
            }
        )
        if self.guard is not None:
            self.guard.follow(snapshot.resources)

    def _set_routers(self, routers: int) -> None:
        self.route.routers = max(1, routers)

    def _credential(self, cluster: str, ref: SecretKeyRef) -> str | None:
        secret = self.secrets.resolve(cluster, ref)
        return secret.reveal() if secret is not None else None

    def _tls_context(self) -> ssl.SSLContext:
        """For connections to external servers: verified, no older than TLS 1.2 since some providers have no more."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
            if self.settings.ca_file is not None:
                try:
                    self._tls.load_verify_locations(cafile=self.settings.ca_file)
                except OSError as error:
                    raise OSError(f"--ca-file {self.settings.ca_file}: {error.strerror or error}") from error
        return self._tls

    # --- pages

    def _ready(self) -> tuple[bool, str]:
        if self.route.draining:
            return False, "draining"
        if self.route.table is None:
            return False, "no snapshot yet"
        return True, "ready"

    def _config(self) -> object:
        snapshot = self.client.snapshot if self.client is not None else None
        if snapshot is None:
            return None
        resources = [msgspec.Raw(encode_resource(resource)) for _, resource in sorted(snapshot.resources.items())]
        return {"version": snapshot.version, "epoch": snapshot.epoch, "resources": resources}

    def _decisions(self) -> Iterator[object]:
        return (decision.as_dict() for decision in self.decisions.all()) if self.decisions is not None else iter(())

    def _explain(self, request_id: str) -> object:
        decision = self.decisions.find(request_id) if self.decisions is not None else None
        return decision.as_dict() if decision is not None else None

    def _gauges(self) -> dict[str, float]:
        return {
            "spillway_connections": len(self.route.connections),
            "spillway_requests_in_flight": sum(budget.in_flight for budget in self.route.budgets.values()),
            "spillway_routers": self.route.routers,
            "spillway_requests_waiting": self.route.waiting.count - sum(held for held, _ in self.route.waiting.held().values()),
            **self.watch.gauges(),
        }

    def info(self) -> dict[str, object]:
        """State of all parts."""
        return {
            "node": self.settings.node_id,
            "role": self.settings.role,
            "bootId": self.boot_id,
            "route": self.route.info(),
            "loop": self.watch.ladder.info(),
            "guard": self.guard.info() if self.guard is not None else None,
            "reporter": self.reporter.info(),
            "config": self.client.info() if self.client is not None else None,
            "secrets": self.secrets.info(),
            "decisions": self.decisions.info() if self.decisions is not None else None,
            "admin": self.admin.info(),
        }

    # --- life

    def _listeners(self) -> tuple[Listener, ...]:
        return (self.route,) if self.guard is None else (self.route, self.guard.site)

    def _engine_up(self) -> bool:
        return self.guard is None or self.guard.probe.up

    def _leave(self) -> None:
        """The pod is being deleted: says so while everything still listens. SIGTERM brings the rest."""
        if not self.route.draining:
            _LOG.info("leaving")
            leave(self._listeners())
            if self.client is not None:
                self._goodbye = asyncio.ensure_future(self.client.drain("terminating"))

    async def run(self) -> None:
        """Serves until SIGTERM or SIGINT, then drains."""
        settings = self.settings
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        guard = self.guard
        inbound = guard.site if guard is not None else None
        if settings.ca_file is not None:
            self._tls_context()  # a file that is no good is told at the start and not by the first snapshot
        self._start_alone()
        backlog = ASYNCIO_BACKLOG if isinstance(loop, asyncio.BaseEventLoop) else BACKLOG
        listeners = [await loop.create_server(lambda: accept(self.route), settings.host, settings.port, backlog=backlog)]
        if inbound is not None:
            listeners.append(
                await loop.create_server(lambda: accept(inbound), settings.host, settings.inbound_port, backlog=backlog)
            )
        await self.admin.start()
        jobs = [run_sweeps(self.route, inbound), self._refresh(), self.reporter.run(), self.watch.run()]
        if guard is not None:
            jobs += [guard.probe.run(), guard.gpu.run()]
        if self.client is not None:
            jobs.append(self.client.run())
        tasks = [loop.create_task(self._survive(job)) for job in jobs]
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        _LOG.info(
            "%s %s: routes on %s:%d, admin on %s:%d",
            settings.role,
            settings.node_id,
            settings.host,
            settings.port,
            settings.admin_host,
            self.admin.port,
        )
        await stop.wait()
        _LOG.info("draining")
        if self.client is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self.client.drain("terminating")
        cut = await drain(self._listeners(), listeners, settings.drain_seconds, self.clock)
        _LOG.info("drained, %d requests cut", cut)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.admin.stop()
        if self.access_log is not None:
            self.access_log.close()

    async def _survive(self, job: Coroutine[Any, Any, None]) -> None:
        """A part that fails is a defect; it is logged and ends the process rather than leaving it half alive."""
        try:
            await job
        except asyncio.CancelledError:
            raise
        except Exception:  # noqa: BLE001 - whatever it was, it is told and the process ends
            _LOG.exception("a part failed")
            os._exit(70)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            self.swapper.refresh()


def within_descriptors(settings: Settings) -> Settings:
    """With as many connections as there are file descriptors for: each client's may have one to an endpoint beside it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    if soft == resource.RLIM_INFINITY:
        return settings
    listeners = 2 if settings.role is Role.SIDECAR else 1
    most = max(1, (soft - OTHER_DESCRIPTORS) // (2 * listeners))
    limits = settings.client_limits
    return replace(settings, client_limits=replace(limits, max_connections=min(limits.max_connections, most)))


def _runner(settings: Settings) -> Callable[[Coroutine[Any, Any, None]], None]:
    if settings.uvloop:
        try:
            import uvloop  # noqa: PLC0415
        except ImportError:
            pass
        else:
            return uvloop.run
    return asyncio.run


def main(argv: list[str] | None = None) -> int:
    """Runs one proxy."""
    settings = within_descriptors(parse(argv, os.environ))
    logging.basicConfig(
        level=os.environ.get("SPILLWAY_LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    try:
        _runner(settings)(Proxy(settings).run())
    except OSError as error:
        _LOG.error("cannot start: %s", error.strerror or error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
