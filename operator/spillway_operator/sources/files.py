"""Resources from files: YAML in folders or named files, and the endpoints file.

The files are looked at every 25 ms: names, inodes, sizes and times only. A file whose look has changed is read when it has
looked the same twice in a row, so a writer at work is not read in the middle; what is read and has the same bytes as before
is not parsed again. With the stream's 50 ms of batching an edit reaches proxies within about 150 ms, a deletion within 200 ms
(the ledger waits a little before it believes that something is gone). Polling finds every way in which an editor saves, on
every file system; looking at 100 files takes about half a millisecond, and where it takes longer it is done less often, so
that it stays below a twentieth of one core.

The endpoints file tells where the endpoints of `pods` and `service` backends are, by backend:

    {"endpoints": {"default/fast": [{"id": "fast-0", "host": "127.0.0.1", "port": 20101, "inbound": true}]}}

Whole or not at all: a file that is gone or cannot be read leaves the endpoints as they were, and is a problem.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from spillway_operator.api.documents import LoadResult, Problem, load_text, resource_files
from spillway_operator.sources.ledger import Ledger
from spillway_operator.store import Store
from spillway_wire.snapshot import Endpoint

_log = logging.getLogger(__name__)

Look = tuple[int, int, int, int]  # inode, size, mtime and ctime in nanoseconds


class EndpointsDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The endpoints file."""

    endpoints: dict[str, tuple[Endpoint, ...]] = {}


_DECODER = msgspec.json.Decoder(EndpointsDocument)


@dataclass(frozen=True, slots=True)
class FilePace:
    """How often files are looked at."""

    poll_seconds: float = 0.025
    grace_seconds: float = 0.075  # how long something must be gone to be gone
    scan_share: float = 0.05  # of the time may go into looking
    slow_scan_seconds: float = 0.005  # a look that took longer is done in a thread, so that the streams do not wait for it
    failure_seconds: float = 1.0  # after a poll that failed, so that the log stays readable


@dataclass(slots=True)
class _Tracked:
    """One file: its look at the last poll, the look that was last read, and what came of it."""

    look: Look | None
    read: Look | None = None
    data: bytes | None = None
    result: LoadResult = LoadResult()  # noqa: RUF009 - frozen


class FileSource:
    """Follows folders and files into a store."""

    def __init__(
        self,
        store: Store,
        *,
        paths: Iterable[Path],
        endpoints_file: Path | None,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
        pace: FilePace | None = None,
    ) -> None:
        self._store = store
        self._paths = tuple(paths)
        self._endpoints_file = endpoints_file
        self._clock = clock
        self._wall_clock = wall_clock
        self._pace = pace or FilePace()
        self._ledger = Ledger(store, grace_seconds=self._pace.grace_seconds)
        self._files: dict[Path, _Tracked] = {}
        self._folders: set[Path] = set()  # roots that were seen to be folders
        self._lost: set[Path] = set()  # roots that are not there
        self._endpoints: _Tracked = _Tracked(look=None)
        self._again_at: float | None = None
        self._scan_seconds = 0.0
        self._reads = 0
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Reads everything once, then follows."""
        await self.poll(settled=True)
        self._task = asyncio.get_running_loop().create_task(self._follow(), name="file-source")

    async def stop(self) -> None:
        """Stops following."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(max(self._pace.poll_seconds, self._scan_seconds / self._pace.scan_share))
            try:
                await self.poll()
            except Exception:  # noqa: BLE001 - whatever a file system says, the next poll must come
                _log.exception("files: poll failed")
                await asyncio.sleep(self._pace.failure_seconds)

    async def poll(self, *, settled: bool = False) -> None:
        """One look at everything. `settled`: read at once what has changed, without waiting for a second equal look."""
        looks, outlook = await self._scan(aside=settled or self._scan_seconds > self._pace.slow_scan_seconds)
        looks |= self._beyond_sight()
        changed = self._files.keys() != looks.keys()
        for gone in self._files.keys() - looks.keys():
            del self._files[gone]
        for path, look in looks.items():
            tracked = self._files.setdefault(path, _Tracked(look=None))
            if self._due(tracked, look, settled):
                changed |= await self._read_resources(path, tracked, look)
            tracked.look = look
        if self._endpoints_file is not None:
            if outlook is None and (settled or (self._endpoints.read is not None and self._endpoints.look is not None)):
                self._tell_endpoints("the file is not there; the endpoints stay as they were")
            elif outlook is not None and self._due(self._endpoints, outlook, settled):
                self._read_endpoints(self._endpoints_file, outlook)
            self._endpoints.look = outlook
        now = self._clock()
        if changed or (self._again_at is not None and now >= self._again_at):
            results = {str(path): tracked.result for path, tracked in self._files.items() if tracked.read is not None}
            unread = any(tracked.read != tracked.look for tracked in self._files.values())
            self._again_at = self._ledger.update(results, now, self._wall_clock(), more_to_come=unread)

    async def _scan(self, *, aside: bool) -> tuple[dict[Path, Look], Look | None]:
        """The looks of all files that are there, and of the endpoints file; `aside`: in a thread, where it may take long."""

        def scan() -> tuple[dict[Path, Look], Look | None]:
            found = {path: look for path in resource_files(self._paths) if (look := _look(path)) is not None}
            return found, None if self._endpoints_file is None else _look(self._endpoints_file)

        begun = self._clock()
        found = await asyncio.to_thread(scan) if aside else scan()
        self._scan_seconds = self._clock() - begun
        return found

    def _beyond_sight(self) -> dict[Path, Look]:
        """Files of folders that are not there at present: a volume that went away deletes nothing."""
        kept: dict[Path, Look] = {}
        for root in self._paths:
            if root.is_dir():
                self._folders.add(root)
            gone = not root.exists()
            was_folder = root in self._folders
            if gone != (root in self._lost):
                (self._lost.add if gone else self._lost.discard)(root)
                message = (
                    "the folder is not there; what it declared stays in force" if was_folder else "there is no such file or folder"
                )
                self._store.set_problems(f"path {root}", (Problem(str(root), 1, "", message),) if gone else ())
                if gone:
                    _log.warning("files: %s: %s", root, message)
            if gone and was_folder:
                kept.update({path: t.look for path, t in self._files.items() if root in path.parents and t.look is not None})
        return kept

    @staticmethod
    def _due(tracked: _Tracked, look: Look, settled: bool) -> bool:
        return tracked.read != look and (settled or tracked.look == look)

    async def _read_resources(self, path: Path, tracked: _Tracked, look: Look) -> bool:
        """Read and, if its bytes differ, load a file; True if something else came of it."""
        tracked.read = look
        self._reads += 1
        data, result = await asyncio.to_thread(_load, path, tracked.data)
        if result is None or (data is None and result == tracked.result):
            return False
        tracked.data, tracked.result = data, result
        for problem in result.errors:
            _log.warning("files: %s", problem)
        return True

    def _read_endpoints(self, path: Path, look: Look) -> None:
        self._endpoints.read = look
        self._reads += 1
        try:
            data = path.read_bytes()
            if data == self._endpoints.data:
                self._tell_endpoints(None)
                return
            document = _DECODER.decode(data)
            _check_endpoints(document)
        except OSError as error:
            self._tell_endpoints(f"the file cannot be read: {(error.strerror or 'unknown reason').lower()}")
            return
        except (msgspec.DecodeError, ValueError) as error:
            self._tell_endpoints(f"{error}; the endpoints stay as they were")
            return
        self._endpoints.data = data
        self._tell_endpoints(None)
        self._store.set_endpoints(document.endpoints)

    def _tell_endpoints(self, message: str | None) -> None:
        origin = str(self._endpoints_file)
        if message is not None:
            _log.warning("files: %s: %s", origin, message)
        self._store.set_problems(origin, () if message is None else (Problem(origin, 1, "", message),))

    def info(self) -> dict[str, Any]:
        """What is watched."""
        return {
            "source": "files",
            "paths": [str(path) for path in self._paths],
            "endpoints_file": None if self._endpoints_file is None else str(self._endpoints_file),
            "files": len(self._files),
            "reads": self._reads,
            "scan_seconds": round(self._scan_seconds, 6),
            "ledger": self._ledger.info(),
        }


def _load(path: Path, before: bytes | None) -> tuple[bytes | None, LoadResult | None]:
    """A file's bytes and what they say; no result where the bytes are as before, no bytes where it cannot be read."""
    try:
        data = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or "unknown reason").lower()
        return None, LoadResult(problems=(Problem(str(path), 1, "", f"the file cannot be read: {reason}"),))
    return data, None if data == before else load_text(data, str(path))


def _look(path: Path) -> Look | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


def _check_endpoints(document: EndpointsDocument) -> None:
    """Ids are unique in a backend, and backends are named with their namespace. Raises ValueError."""
    for name, endpoints in document.endpoints.items():
        namespace, slash, backend = name.partition("/")
        if not (namespace and slash and backend) or "/" in backend:
            raise ValueError(f'{name!r} is no backend: write "namespace/name"')
        seen = set()
        for endpoint in endpoints:
            if endpoint.id in seen:
                raise ValueError(f"{name} has the endpoint {endpoint.id} twice: give each endpoint its own id")
            seen.add(endpoint.id)
