"""The last good snapshot on disk, for a start while the operator is away.

One file: a line of JSON (format, time of saving, length and BLAKE2 of the rest), then the snapshot as a full `update`
message. It is written beside and renamed, so that a reader finds the old or the new one whole; it holds references to
secrets, never their values. A file that is cut, altered, too old or inconsistent is refused with a reason, and the proxy
starts empty.
"""

from __future__ import annotations

import contextlib
import enum
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from spillway_sidecar.config.apply import apply_update
from spillway_sidecar.config.snapshot import Snapshot
from spillway_wire.messages import MAX_FRAME_FROM_OPERATOR_BYTES, Update, decode_from_operator, encode
from spillway_wire.snapshot import encode_resource

FORMAT: Final = "spillway.last-good/1"
MAX_AGE_SECONDS: Final = 86_400.0  # a day-old picture of endpoints is worth a try, an older one misleads
MAX_CLOCK_ERROR_SECONDS: Final = 300.0  # saved in the future: the age is unknown
_MAX_HEADER_BYTES: Final = 1024


class Refused(enum.StrEnum):
    """Why the file is not used."""

    ABSENT = "Absent"
    UNREADABLE = "Unreadable"
    TRUNCATED = "Truncated"
    CORRUPT = "Corrupt"
    TOO_OLD = "TooOld"
    INCONSISTENT = "Inconsistent"


class LastGoodRefusedError(Exception):
    """There is no snapshot to start from."""

    def __init__(self, reason: Refused, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class _Header(msgspec.Struct):
    format: str
    saved_at: float
    length: int
    blake2b: str


class LastGoodStore:
    """The file at `path`. `wall_clock`: seconds since the epoch. Blocking: not for an event loop's thread."""

    def __init__(self, path: Path, wall_clock: Callable[[], float], max_age_seconds: float = MAX_AGE_SECONDS) -> None:
        self._path = path
        self._wall_clock = wall_clock
        self._max_age_seconds = max_age_seconds

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    def save(self, snapshot: Snapshot) -> None:
        """Write whole or not at all. Raises OSError."""
        body = encode(
            Update(
                version=snapshot.version,
                nonce="",
                epoch=snapshot.epoch,
                full=True,
                resources=tuple(msgspec.Raw(encode_resource(resource)) for resource in snapshot.resources.values()),
            )
        )
        header = _Header(format=FORMAT, saved_at=self._wall_clock(), length=len(body), blake2b=_digest(body))
        self._path.parent.mkdir(parents=True, exist_ok=True)
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(msgspec.json.encode(header) + b"\n")
                file.write(body)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self._path)
        except OSError:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def load(self) -> Snapshot:
        """The snapshot, checked like one from the stream. Raises `LastGoodRefusedError`."""
        header, body = self._read()
        if header.format != FORMAT:
            raise LastGoodRefusedError(Refused.CORRUPT, f"format {header.format[:40]!r}")
        if len(body) != header.length:
            raise LastGoodRefusedError(Refused.TRUNCATED, f"{len(body)} bytes where {header.length} were written")
        if _digest(body) != header.blake2b:
            raise LastGoodRefusedError(Refused.CORRUPT, "checksum")
        age_seconds = self._wall_clock() - header.saved_at
        if not -MAX_CLOCK_ERROR_SECONDS <= age_seconds <= self._max_age_seconds:
            raise LastGoodRefusedError(Refused.TOO_OLD, f"saved {age_seconds / 3600:.1f} hours ago")
        try:
            update = decode_from_operator(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LastGoodRefusedError(Refused.CORRUPT, str(error)) from error
        if not isinstance(update, Update):
            raise LastGoodRefusedError(Refused.CORRUPT, "not a snapshot")
        snapshot = apply_update(None, update, 0)
        if not isinstance(snapshot, Snapshot):
            raise LastGoodRefusedError(Refused.INCONSISTENT, f"{snapshot[0].path}: {snapshot[0].message}")
        return snapshot

    def _read(self) -> tuple[_Header, bytes]:
        try:
            with self._path.open("rb") as file:
                head = file.readline(_MAX_HEADER_BYTES)
                body = file.read(MAX_FRAME_FROM_OPERATOR_BYTES + 1)
        except FileNotFoundError as error:
            raise LastGoodRefusedError(Refused.ABSENT, str(self._path)) from error
        except OSError as error:
            raise LastGoodRefusedError(Refused.UNREADABLE, str(error)) from error
        if not head.endswith(b"\n"):
            raise LastGoodRefusedError(Refused.TRUNCATED, "no header")
        try:
            return msgspec.json.decode(head, type=_Header), body
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise LastGoodRefusedError(Refused.CORRUPT, f"header: {error}") from error


def _digest(body: bytes) -> str:
    return hashlib.blake2b(body, digest_size=16).hexdigest()
