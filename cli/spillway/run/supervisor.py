"""Brings the processes that run to the ones that should, and ends them in order.

`apply` compares commands: a child whose command is not wanted any more is stopped, one that is new is started, one whose
command changed is both. An endpoint enters the endpoints file when its sidecar listens (and its engine, where one takes a while to start), and
leaves it before its sidecar is asked to go, so that traffic never meets a port that is not there yet and none is lost on a way out.

A replica that is one too many *retires*: it is no endpoint any more, its requests come to their end, and then it is stopped. One that is
wanted again meanwhile is taken back.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from spillway.admin import fetch
from spillway.run.child import Child, Say
from spillway.run.layout import (
    LOOPBACK,
    ChildSpec,
    Replica,
    Site,
    changes,
    endpoints_document,
    fixed_children,
    replicas,
    targets_document,
)
from spillway.run.logs import BoundedLog
from spillway.run.ports import Ports, is_free
from spillway.run.standalone import Standalone

LISTEN_POLL_SECONDS = 0.05
# A sidecar that does not listen after so long is shown as an endpoint anyway: one that is missing would hide the trouble.
LISTEN_PATIENCE_SECONDS = 5.0
LEAVE_SECONDS = 0.3  # for proxies to hear that an endpoint is gone before its sidecar is stopped
RETIRE_SECONDS = 600.0  # for the requests of a replica that retires: as long as a route gives one by default
RETIRE_POLL_SECONDS = 0.2
_UNDER_WAY = re.compile(rb"^spillway_inbound_(?:in_flight|queued) ([0-9.e+]+)$", re.MULTILINE)
_ENGINE_UP = re.compile(rb"^spillway_inbound_engine_up 1(?:\.0)?$", re.MULTILINE)


def write_atomically(path: Path, text: str) -> None:
    """Replace a file's content so that a reader sees the old or the new one."""
    partial = path.with_name(path.name + ".tmp")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


class Supervisor:
    """Owns the children of one run."""

    def __init__(self, site: Site, environ: Mapping[str, str], ports: Ports, say: Say, grace_seconds: float) -> None:
        self.site = site
        self._environ, self._ports, self._say, self._grace_seconds = environ, ports, say, grace_seconds
        self._standalone = Standalone()
        self._children: dict[str, Child] = {}
        self._replicas: list[Replica] = []
        self._listening: set[tuple[str, int]] = set()  # endpoint id, inbound port
        self._retiring: dict[str, tuple[Replica, asyncio.Task[None]]] = {}  # by endpoint id
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    def info(self) -> dict[str, object]:
        """State in figures."""
        return {"children": [child.info() for child in self._children.values()], "ports": self._ports.info()}

    async def apply(self, standalone: Standalone) -> None:
        """Make what runs what these files say."""
        async with self._lock:
            if self._stopping:
                return
            self._standalone = standalone
            before, self._replicas = self._replicas, replicas(self.site, standalone, self._ports)
            self._retire({replica.id: replica for replica in before}, {replica.id for replica in self._replicas})
            wanted = fixed_children(self.site, standalone.allow_hosts)
            wanted += [spec for replica in self._replicas for spec in replica.children]
            retiring = {spec for replica, _ in self._retiring.values() for spec in replica.children}
            running = [child.spec for child in self._children.values() if child.spec not in retiring]
            leaving, coming = changes(running, wanted)
            ids = {(replica.id, replica.inbound_port) for replica in self._replicas}
            left = bool(self._listening - ids)
            self._listening &= ids
            self._write_endpoints()
            write_atomically(self.site.targets_file, targets_document(standalone))
            if left and leaving:
                await asyncio.sleep(LEAVE_SECONDS)
            await self._stop(leaving)
            for spec in coming:
                self._start(spec)
        for replica in self._replicas:
            if (replica.id, replica.inbound_port) not in self._listening:
                self._spawn(self._await_listening(replica))

    def _retire(self, before: Mapping[str, Replica], wanted: set[str]) -> None:
        """Let go of the replicas that are not wanted any more, and take back those that are again."""
        for identity in self._retiring.keys() & wanted:
            _, task = self._retiring.pop(identity)
            task.cancel()
        for identity, replica in before.items():
            if identity not in wanted:
                self._retiring[identity] = (replica, self._spawn(self._see_out(replica)))

    async def _see_out(self, replica: Replica) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + RETIRE_SECONDS
        await asyncio.sleep(LEAVE_SECONDS)
        while await _busy(replica.admin_port) and loop.time() < deadline:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(RETIRE_POLL_SECONDS)
        async with self._lock:
            del self._retiring[replica.id]
            await self._stop([spec for spec in replica.children if spec.name in self._children])

    async def stop(self) -> None:
        """End everything: proxies first, each step within the grace."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        async with self._lock:
            await self._stop([child.spec for child in self._children.values()])

    def kill(self) -> None:
        """SIGKILL to all that still run."""
        for child in self._children.values():
            child.signal(signal.SIGKILL)

    def _start(self, spec: ChildSpec) -> None:
        log = BoundedLog(self.site.state_dir / "logs" / spec.log_name)
        environ = self._environ if spec.secrets else without_secrets(self._environ)
        child = Child(spec, log, environ, self._say)
        child.on_death = self._look_at_ports
        self._children[spec.name] = child

    async def _stop(self, specs: Sequence[ChildSpec]) -> None:
        for _, step in groupby(sorted(specs, key=lambda spec: spec.stop_step), key=lambda spec: spec.stop_step):
            names = [spec.name for spec in step]
            await asyncio.gather(*(self._children[name].stop(self._grace_seconds) for name in names))
            for name in names:
                del self._children[name]

    def _look_at_ports(self, child: Child) -> None:
        """Of a dead child no port is taken; if one is, somebody else has it, and the replica moves."""
        kind, _, identity = child.spec.name.partition(" ")
        purposes = {"engine": ("engine",), "sidecar": ("inbound", "route", "admin")}.get(kind, ())
        known = self._ports.info()
        taken = [purpose for part in purposes if (purpose := f"{identity} {part}") in known and not is_free(known[purpose])]
        if not taken or self._stopping:
            return
        for purpose in taken:
            self._say(f"port {known[purpose]} ({purpose}) is taken by another program; taking another")
            self._ports.give_up(purpose)
        self._spawn(self.apply(self._standalone))

    async def _await_listening(self, replica: Replica) -> None:
        deadline = asyncio.get_running_loop().time() + LISTEN_PATIENCE_SECONDS + replica.cold_start_seconds
        while not await _takes_requests(replica) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LISTEN_POLL_SECONDS)
        if replica in self._replicas:
            self._listening.add((replica.id, replica.inbound_port))
            self._write_endpoints()

    def _write_endpoints(self) -> None:
        listening = [replica for replica in self._replicas if (replica.id, replica.inbound_port) in self._listening]
        write_atomically(self.site.endpoints_file, endpoints_document(listening, self._standalone))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def _takes_requests(replica: Replica) -> bool:
    """Whether its sidecar listens, and has found its engine where that takes a while to start."""
    if not await _listens(replica.inbound_port):
        return False
    return not replica.cold_start_seconds or _ENGINE_UP.search(await _metrics(replica.admin_port)) is not None


async def _busy(admin_port: int) -> bool:
    """Whether a sidecar has requests. One that does not answer has none."""
    return any(float(count) > 0 for count in _UNDER_WAY.findall(await _metrics(admin_port)))


async def _metrics(admin_port: int) -> bytes:
    try:
        return (await fetch(f"http://{LOOPBACK}:{admin_port}", "/metrics", timeout_seconds=2.0))[1]
    except OSError:
        return b""


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def without_secrets(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without the keys of external servers."""
    return {name: value for name, value in environ.items() if not name.startswith("SPILLWAY_SECRET_")}


def child_environment(environ: Mapping[str, str], own_options: Iterable[str]) -> dict[str, str]:
    """The environment without what was meant for `spillway run` itself; children get their options as arguments."""
    own = {"SPILLWAY_" + name.upper() for name in own_options}
    return {**{name: value for name, value in environ.items() if name not in own}, "PYTHONUNBUFFERED": "1"}
