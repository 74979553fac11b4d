"""Brings the processes that run to the ones that should, and ends them in order.

`apply` compares commands: a child whose command is not wanted any more is stopped, one that is new is started, one whose
command changed is both. An endpoint enters the endpoints file when its sidecar listens, and leaves it before its sidecar is
asked to go, so that traffic never meets a port that is not there yet and none is lost on a way out.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path

from spillway.run.child import Child, Say
from spillway.run.layout import LOOPBACK, ChildSpec, Replica, Site, changes, endpoints_document, fixed_children, replicas
from spillway.run.logs import BoundedLog
from spillway.run.ports import Ports, is_free
from spillway.run.standalone import Standalone

LISTEN_POLL_SECONDS = 0.05
# A sidecar that does not listen after so long is shown as an endpoint anyway: one that is missing would hide the trouble.
LISTEN_PATIENCE_SECONDS = 5.0
LEAVE_SECONDS = 0.3  # for proxies to hear that an endpoint is gone before its sidecar is stopped


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
            self._replicas = replicas(self.site, standalone, self._ports)
            wanted = fixed_children(self.site, standalone.allow_hosts)
            wanted += [spec for replica in self._replicas for spec in (replica.engine, replica.sidecar)]
            leaving, coming = changes([child.spec for child in self._children.values()], wanted)
            ids = {(replica.id, replica.inbound_port) for replica in self._replicas}
            left = bool(self._listening - ids)
            self._listening &= ids
            self._write_endpoints()
            if left:
                await asyncio.sleep(LEAVE_SECONDS)
            await self._stop(leaving)
            for spec in coming:
                self._start(spec)
        for replica in self._replicas:
            if (replica.id, replica.inbound_port) not in self._listening:
                self._spawn(self._await_listening(replica))

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
        deadline = asyncio.get_running_loop().time() + LISTEN_PATIENCE_SECONDS
        while not await _listens(replica.inbound_port) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(LISTEN_POLL_SECONDS)
        if replica in self._replicas:
            self._listening.add((replica.id, replica.inbound_port))
            self._write_endpoints()

    def _write_endpoints(self) -> None:
        listening = [replica for replica in self._replicas if (replica.id, replica.inbound_port) in self._listening]
        write_atomically(self.site.endpoints_file, endpoints_document(listening, self._standalone))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
