"""Recent states of the snapshot, and the frames that lead a proxy to the newest one.

A frame depends only on the version that the proxy holds and on its scope, so one frame serves every proxy that is alike:
the resources in it are the bytes that the state carries, the frame is assembled once, and it includes the WebSocket header,
which is the same for all because servers do not mask. What is kept is the recent states themselves; they share their
encoded resources, and a version that has left them is answered with a full update.

What a proxy loses on purpose is told from the states between: an endpoint that any of them withdrew, or whose cluster was
not there in one of them, has gone in so many words, also when the newest state alone does not show it (a backend deleted
and declared again while the proxy was away).

Scope: a node without a namespace takes everything, any other what lies in its namespace (`namespace/name`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import Any, Final, TypeAlias

import msgspec

from spillway_operator.snapshot.state import Changes, EncodedResource, SnapshotState, changes
from spillway_wire.messages import EndpointRemoval, Update, encode
from spillway_wire.snapshot import Endpoints, ResourceKey

_Resources: TypeAlias = Mapping[ResourceKey, EncodedResource]

MAX_STATES: Final = 128
MAX_ENTRIES: Final = 500_000  # references to resources over all states: tens of MB at most


@dataclass(frozen=True, slots=True)
class UpdateFrame:
    """One update as it goes over the socket, for every proxy with the same version and scope."""

    version: str
    nonce: str
    full: bool
    settled: bool
    wire: bytes


def in_scope(key: ResourceKey, scope: str) -> bool:
    """Whether a node of namespace `scope` is told about the resource."""
    return not scope or key[1].startswith(scope + "/")


def text_frame(payload: bytes) -> bytes:
    """A WebSocket text frame from a server: final, unmasked, uncompressed (RFC 6455, 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((0x81, length)) + payload
    if length < 0x10000:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


def close_frame(code: int, reason: str) -> bytes:
    """A WebSocket close frame from a server; at most 123 bytes of reason fit."""
    payload = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes((0x88, len(payload))) + payload


class Updates:
    """The recent states, newest last, and the frames to the newest."""

    def __init__(self, *, max_states: int = MAX_STATES, max_entries: int = MAX_ENTRIES) -> None:
        self._max_states = max_states
        self._max_entries = max_entries
        self._entries = 0
        self._states: OrderedDict[str, SnapshotState] = OrderedDict()
        self._frames: dict[tuple[str | None, str], UpdateFrame] = {}
        self._scoped: dict[tuple[str, str], _Resources] = {}
        self._nonces = count(1)
        self._settled = False
        self.current: SnapshotState | None = None
        self.assembled = 0

    @property
    def settled(self) -> bool:
        """Whether full updates vouch for what they leave out."""
        return self._settled

    def settle(self) -> None:
        """From here on full updates vouch for what they leave out."""
        self._settled = True
        self._frames.clear()

    def advance(self, state: SnapshotState) -> None:
        """`state` is the newest."""
        if self.current is not None and state.version == self.current.version:
            return
        self.current = state
        self._frames.clear()
        self._scoped.clear()
        self._states[state.version] = state
        self._entries += len(state.resources)
        while len(self._states) > 1 and (len(self._states) > self._max_states or self._entries > self._max_entries):
            _, gone = self._states.popitem(last=False)
            self._entries -= len(gone.resources)

    def knows(self, version: str | None) -> bool:
        """Whether changes since `version` can be told."""
        return version in self._states

    def resources(self, version: str | None, scope: str) -> _Resources | None:
        """What a node of that scope holds at `version`; None if the version is not among the recent ones."""
        state = self._states.get(version) if version is not None else None
        if state is None:
            return None
        if not scope:
            return state.resources
        key = (state.version, scope)
        scoped = self._scoped.get(key)
        if scoped is None:
            scoped = {name: resource for name, resource in state.resources.items() if in_scope(name, scope)}
            self._scoped[key] = scoped
        return scoped

    def frame(self, held: str | None, scope: str, routers: int) -> UpdateFrame | None:
        """The frame that leads from `held` to the newest state; None before there is one.

        `routers` is that of the first who asks: frames are shared, and pings correct the count within seconds.
        """
        if self.current is None:
            return None
        base = held if self.knows(held) else None
        frame = self._frames.get((base, scope))
        if frame is None:
            frame = self._assemble(self.current, base, scope, routers)
            self._frames[base, scope] = frame
        return frame

    def _assemble(self, current: SnapshotState, base: str | None, scope: str, routers: int) -> UpdateFrame:
        nonce = str(next(self._nonces))
        held = self.resources(base, scope)
        resources = self.resources(current.version, scope) or {}
        withdrawn = current.withdrawn if held is None else self._withdrawn_since(base, held, resources)
        target = SnapshotState(version=current.version, epoch=current.epoch, resources=resources, withdrawn=withdrawn)
        if held is None:
            removals = tuple(
                EndpointRemoval(cluster=cluster, ids=tuple(sorted(ids)))
                for cluster, ids in sorted(current.withdrawn.items())
                if ids and in_scope(("endpoints", cluster), scope)
            )
            difference = Changes(changed=tuple(target.resources.values()), removed_endpoints=removals)
        else:
            difference = changes(held, target)
        update = Update(
            version=current.version,
            nonce=nonce,
            epoch=current.epoch,
            resources=tuple(msgspec.Raw(resource.data) for resource in difference.changed),
            removed=difference.removed,
            removed_endpoints=difference.removed_endpoints,
            base=base,
            full=base is None,
            settled=self._settled and base is None,
            routers=max(1, routers),
        )
        self.assembled += 1
        wire = text_frame(encode(update))
        return UpdateFrame(version=current.version, nonce=nonce, full=update.full, settled=update.settled, wire=wire)

    def _withdrawn_since(self, base: str | None, held: _Resources, target: _Resources) -> dict[str, frozenset[str]]:
        """Endpoints of `held` that some state after `base` took away, by cluster."""
        later = list(takewhile(lambda state: state.version != base, reversed(self._states.values())))
        result: dict[str, frozenset[str]] = {}
        for key, before in held.items():
            after = target.get(key)
            if after is None or after.hash == before.hash or not isinstance(before.resource, Endpoints):
                continue
            if any(key not in state.resources for state in later):
                result[before.resource.name] = frozenset(endpoint.id for endpoint in before.resource.endpoints)
            else:
                gone = (state.withdrawn.get(before.resource.name, frozenset()) for state in later)
                result[before.resource.name] = frozenset[str]().union(*gone)
        return result

    def info(self) -> dict[str, Any]:
        """Versions kept and frames made."""
        return {
            "version": self.current.version if self.current else None,
            "states": len(self._states),
            "entries": self._entries,
            "frames_in_use": len(self._frames),
            "frames_assembled": self.assembled,
            "frame_bytes": sum(len(frame.wire) for frame in self._frames.values()),
            "settled": self._settled,
        }
