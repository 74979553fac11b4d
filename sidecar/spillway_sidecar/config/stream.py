"""The state of a proxy on the stream, without I/O: frames in, answers out.

`snapshot` is what is in force. An update goes through three doors: it decodes and its result is consistent
(`apply.apply_update`), its epoch is not older than one that was taken, and the data path accepts it (`put_in_force` does not
raise). Then it is in force and answered with an ACK, else nothing has changed and it is answered with a NACK.

A frame that comes twice (the nonce of the one before, on one connection) is skipped; changes that do not start from what is
in force are refused with `BaseMismatch`, on which the operator sends everything. So no loss or repetition of frames can mix
two versions.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec

from spillway_sidecar.config.apply import apply_update
from spillway_sidecar.config.snapshot import Snapshot
from spillway_wire.messages import Ack, Fault, FaultReason, Hello, Nack, Node, Ping, Pong, Update, decode_from_operator, encode

_log = logging.getLogger(__name__)


class BadFrameError(Exception):
    """The operator sent what is not a message of the stream: the connection is given up, what is in force stays."""


class Stream:
    """What a proxy holds, and its answers to the operator."""

    def __init__(self, node: Node, put_in_force: Callable[[Snapshot], None], set_routers: Callable[[int], None]) -> None:
        self._node = node
        self._put_in_force = put_in_force
        self._set_routers = set_routers
        self._highest_epoch = 0
        self._nonce: str | None = None
        self._counts: Counter[str] = Counter()
        self._faults: tuple[Fault, ...] = ()
        self.snapshot: Snapshot | None = None
        self.routers = 1

    def restore(self, snapshot: Snapshot) -> bool:
        """Put a snapshot from disk in force; False if the data path refuses it."""
        fault = self._enforce(snapshot)
        if fault is not None:
            _log.warning("config: the last good snapshot %s is not accepted: %s", snapshot.version, fault.message)
        return fault is None

    def hello(self) -> bytes:
        """The first frame of a connection."""
        self._nonce = None
        return encode(Hello(node=self._node, resume_version=self.snapshot.version if self.snapshot else None))

    def receive(self, frame: bytes | str) -> bytes | None:
        """The answer to a frame, if it has one. Raises `BadFrameError`."""
        try:
            message = decode_from_operator(frame)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self._counts["bad_frames"] += 1
            raise BadFrameError(str(error)[:300]) from error
        self._note_routers(message.routers)
        if isinstance(message, Ping):
            self._counts["pings"] += 1
            return encode(Pong(id=message.id))
        return self._update(message)

    def _update(self, update: Update) -> bytes | None:
        if update.nonce == self._nonce:
            self._counts["repeated"] += 1
            return None
        self._nonce = update.nonce
        result = apply_update(self.snapshot, update, self._highest_epoch)
        if isinstance(result, Snapshot):
            fault = self._enforce(result)
            if fault is None:
                self._counts["updates_full" if update.full else "updates"] += 1
                self._faults = ()
                return encode(Ack(version=update.version, nonce=update.nonce))
            result = (fault,)
        self._counts["nacks"] += 1
        self._faults = result
        held = self.snapshot.version if self.snapshot else None
        first = result[0]
        _log.warning(
            "config: snapshot %s refused, %s stays: %s: %s: %s", update.version, held, first.path, first.reason, first.message
        )
        return encode(Nack(version=held, nonce=update.nonce, errors=result))

    def _enforce(self, snapshot: Snapshot) -> Fault | None:
        try:
            self._put_in_force(snapshot)
        except Exception as error:  # noqa: BLE001 - whatever the data path finds wrong keeps what is in force
            return Fault(path="", reason=FaultReason.REJECTED, message=f"{type(error).__name__}: {error}"[:1000])
        self.snapshot = snapshot
        self._highest_epoch = max(self._highest_epoch, snapshot.epoch)
        return None

    def _note_routers(self, routers: int) -> None:
        if routers != self.routers:
            self.routers = routers
            self._set_routers(routers)

    def info(self) -> dict[str, Any]:
        """What is in force, what was refused last, and counters."""
        return {
            "snapshot": self.snapshot.info() if self.snapshot else None,
            "highest_epoch": self._highest_epoch,
            "routers": self.routers,
            "faults": [{"path": fault.path, "reason": str(fault.reason), "message": fault.message} for fault in self._faults],
            "counts": dict(self._counts),
        }
