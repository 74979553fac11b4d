"""The proxy's side of the stream over aiohttp: connects, reads, writes, and comes back.

Start: the last good snapshot goes in force at once, then the stream corrects it; a proxy that finds no operator serves
within the time that reading a file takes. Only then a thread brings aiohttp in (`websocket`). After that one loop holds one connection: hello, then the operator's frames in
order, each answered before the next is read. A second task writes reports from the outbox as they come; neither can hold up
the data path, which only calls `send_report`.

The operator pings; a connection that brings nothing for `silence_seconds` is given up. The snapshot is written to disk by a task of its
own, at most once a second, in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from spillway_sidecar.config.backoff import delay_seconds
from spillway_sidecar.config.last_good import LastGoodRefusedError, LastGoodStore
from spillway_sidecar.config.outbox import Outbox
from spillway_sidecar.config.snapshot import Snapshot
from spillway_sidecar.config.stream import BadFrameError, Stream
from spillway_wire.messages import Bye, Node, Report, encode
from spillway_wire.names import DISCOVERY_PATH

if TYPE_CHECKING:
    from spillway_sidecar.config.websocket import Dialer, Socket

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds for each wait."""

    connect_seconds: float = 5.0
    silence_seconds: float = 15.0  # three pings missed
    send_seconds: float = 10.0
    close_seconds: float = 1.0
    save_seconds: float = 1.0  # between two writes of the last good snapshot


class DiscoveryClient:
    """Holds the stream to the operator at `url`. `apply` puts a snapshot in force, and raises to refuse it.

    `clock`: monotonic seconds. `token`: a bearer token read anew for each connection, where the operator asks for one.
    `tls`: what to trust of an https operator, made anew for each connection, since a cluster's authority changes; else the usual.
    """

    def __init__(
        self,
        url: str,
        node: Node,
        apply: Callable[[Snapshot], None],
        set_routers: Callable[[int], None],
        last_good: LastGoodStore | None,
        rng: Random,
        clock: Callable[[], float],
        *,
        deadlines: Deadlines | None = None,
        token: Callable[[], str] | None = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
    ) -> None:
        self._url = url.rstrip("/") + DISCOVERY_PATH
        self._node = node
        self._last_good = last_good
        self._rng = rng
        self._clock = clock
        self._deadlines = deadlines or Deadlines()
        self._token = token
        self._tls = tls
        self._stream = Stream(node, apply, set_routers)
        self._outbox = Outbox(node.boot_id)
        self._report_waits = asyncio.Event()
        self._unsaved = asyncio.Event()
        self._saved_version: str | None = None
        self._started_from: str = "nothing"
        self._draining: Bye | None = None
        self._dialer: Dialer  # from the start on
        self._socket: Socket | None = None
        self._connected_at: float | None = None
        self._contacted = False
        self._failures = 0
        self._counts: Counter[str] = Counter()
        self._last_error = ""

    @property
    def snapshot(self) -> Snapshot | None:
        """The snapshot in force."""
        return self._stream.snapshot

    @property
    def ready(self) -> bool:
        """Whether there is a snapshot."""
        return self._stream.snapshot is not None

    @property
    def connected(self) -> bool:
        """Whether the stream is up."""
        return self._socket is not None

    def send_report(self, report: Report) -> None:
        """Leave a report for the operator. Never waits: one that cannot leave yet is merged with the next."""
        self._outbox.put(report)
        self._report_waits.set()

    async def drain(self, reason: str) -> None:
        """Tell the operator that this proxy takes nothing new; the stream stays up, and says so again after a reconnect."""
        self._draining = Bye(reason=reason[:320])
        socket = self._socket
        if socket is not None:
            with contextlib.suppress(*self._dialer.FAILURES):
                await self._send(socket, encode(self._draining))

    async def run(self) -> None:
        """Serves until cancelled. Cancellation closes the stream and leaves the newest snapshot on disk."""
        await self._start_from_disk()
        saver = asyncio.create_task(self._save_on_change(), name="last-good")
        try:
            module = await asyncio.to_thread(import_module, "spillway_sidecar.config.websocket")
            gc.freeze()  # what was brought in stays: no collection has to look at it
            async with module.Dialer(self._deadlines.connect_seconds, self._deadlines.close_seconds) as self._dialer:
                while True:
                    await self._connection()
                    await asyncio.sleep(delay_seconds(self._failures, contacted=self._contacted, rng=self._rng))
                    self._failures += 1
        finally:
            await _end(saver)
            await asyncio.shield(asyncio.to_thread(self._save))

    # The snapshot on disk.

    async def _start_from_disk(self) -> None:
        if self._last_good is None:
            return
        try:
            snapshot = await asyncio.to_thread(self._last_good.load)
        except LastGoodRefusedError as error:
            self._started_from = str(error.reason)
            _log.info("config: no last good snapshot: %s", error)
            return
        if self._stream.restore(snapshot):
            self._started_from = snapshot.version
            self._saved_version = snapshot.version
            _log.info("config: serving from the last good snapshot %s", snapshot.version)

    async def _save_on_change(self) -> None:
        while True:
            await self._unsaved.wait()
            await asyncio.sleep(self._deadlines.save_seconds)
            self._unsaved.clear()
            await asyncio.to_thread(self._save)

    def _save(self) -> None:
        snapshot = self._stream.snapshot
        if self._last_good is None or snapshot is None or snapshot.version == self._saved_version:
            return
        try:
            self._last_good.save(snapshot)
        except OSError as error:
            self._counts["save_errors"] += 1
            _log.warning("config: the last good snapshot was not saved: %s", error)
        else:
            self._saved_version = snapshot.version
            self._counts["saves"] += 1

    # The connection.

    async def _connection(self) -> None:
        """One connection from the first byte to the last, however it ends."""
        try:
            async with self._connect() as socket:
                self._counts["connections"] += 1
                await self._converse(socket)
        except (*self._dialer.FAILURES, BadFrameError) as error:
            self._last_error = f"{type(error).__name__}: {error}"[:300]
            self._counts["failures"] += 1
            log = _log.info if self._failures else _log.warning
            log("config: stream to %s: %s", self._url, self._last_error)

    @contextlib.asynccontextmanager
    async def _connect(self) -> AsyncIterator[Socket]:
        headers = {"Authorization": f"Bearer {self._token()}"} if self._token is not None else {}
        tls = self._tls() if self._tls is not None and self._url.startswith("https://") else True
        socket = await self._dialer.dial(self._url, headers, tls)
        try:
            yield socket
        finally:
            await socket.close()

    async def _converse(self, socket: Socket) -> None:
        await self._send(socket, self._stream.hello())
        if self._draining is not None:
            await self._send(socket, encode(self._draining))
        self._socket = socket
        self._connected_at = self._clock()
        writer = asyncio.create_task(self._write_reports(socket), name="report-writer")
        try:
            await self._read(socket)
        finally:
            self._socket = self._connected_at = None
            await _end(writer)

    async def _read(self, socket: Socket) -> None:
        while True:
            async with asyncio.timeout(self._deadlines.silence_seconds):
                message = await socket.receive()
            if message.type is not self._dialer.TEXT:
                self._last_error = f"closed: {socket.close_code} {message.extra or ''}".strip()
                return
            before = self._stream.snapshot
            answer = self._stream.receive(message.data)
            self._contacted, self._failures = True, 0
            if self._stream.snapshot is not before:
                self._unsaved.set()
            if answer is not None:
                await self._send(socket, answer)

    async def _write_reports(self, socket: Socket) -> None:
        """A connection that does not take reports is cut; the reader sees it closed."""
        try:
            while True:
                await self._report_waits.wait()
                self._report_waits.clear()
                for frame in self._outbox.take():
                    await self._send(socket, frame)
        except self._dialer.FAILURES as error:
            self._last_error = f"{type(error).__name__}: {error}"[:300]
            await socket.close()

    async def _send(self, socket: Socket, frame: bytes) -> None:
        async with asyncio.timeout(self._deadlines.send_seconds):
            await socket.send_frame(frame, self._dialer.TEXT)

    def info(self) -> dict[str, Any]:
        """The stream's state, what started it, and counters."""
        stream = self._stream.info()
        return {
            **stream,
            "url": self._url,
            "connected": self.connected,
            "connected_seconds": None if self._connected_at is None else round(self._clock() - self._connected_at, 3),
            "draining": self._draining is not None,
            "started_from": self._started_from,
            "saved_version": self._saved_version,
            "failures_in_a_row": self._failures,
            "last_error": self._last_error,
            "counts": {**stream["counts"], **self._counts},
            "outbox": self._outbox.info(),
        }


def operator_tls(ca_file: Path) -> ssl.SSLContext:
    """Trusts the authority in the file alone, and talks TLS 1.3 alone: the other end is ours. Raises OSError."""
    try:
        context = ssl.create_default_context(cafile=str(ca_file))
    except ssl.SSLError as error:
        raise OSError(f"{ca_file} holds no certificate: {error.reason}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel and wait. Not by awaiting the task: that would swallow a cancellation of the caller together with the task's."""
    task.cancel()
    await asyncio.wait({task})
