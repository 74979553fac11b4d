"""A snapshot as the operator holds it: every wire resource with its canonical bytes and content hash.

A state is a value. The builder makes the next one from the one before and reuses each `EncodedResource` whose content is
equal, so a resource is encoded and hashed once however many proxies take it, and "changed" is a comparison of hashes.

`withdrawn` holds the endpoint ids that were taken away on purpose and have not come back, by cluster. A proxy may be any
number of versions behind, so what its update must list as explicit removals depends on the proxy; the ids that it loses and
that stand in `withdrawn` are the ones to list (`changes` does that).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spillway_wire.messages import EndpointRemoval, ResourceName
from spillway_wire.snapshot import Endpoints, Resource, ResourceKey, content_hash, encode_resource, key_of


@dataclass(frozen=True, slots=True)
class EncodedResource:
    """One resource with its canonical JSON and the hash of it."""

    key: ResourceKey
    resource: Resource
    data: bytes
    hash: str


@dataclass(frozen=True, slots=True)
class SnapshotState:
    """All resources at `version` (`"<epoch>.<counter>"`, unique for each published state)."""

    version: str
    epoch: int
    resources: Mapping[ResourceKey, EncodedResource] = field(default_factory=dict)
    withdrawn: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def info(self) -> dict[str, Any]:
        """Version and sizes."""
        return {
            "version": self.version,
            "epoch": self.epoch,
            "resources": len(self.resources),
            "bytes": sum(len(resource.data) for resource in self.resources.values()),
            "withdrawn_endpoints": sum(len(ids) for ids in self.withdrawn.values()),
        }


@dataclass(frozen=True, slots=True)
class Changes:
    """What leads from one state to another, in the terms of an `Update`."""

    changed: tuple[EncodedResource, ...] = ()
    removed: tuple[ResourceName, ...] = ()
    removed_endpoints: tuple[EndpointRemoval, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changed or self.removed)


def encode(resource: Resource, previous: Mapping[ResourceKey, EncodedResource]) -> EncodedResource:
    """The resource encoded, or the encoding in `previous` when that holds an equal one."""
    key = key_of(resource)
    known = previous.get(key)
    if known is not None and (known.resource is resource or known.resource == resource):
        return known
    data = encode_resource(resource)
    return EncodedResource(key=key, resource=resource, data=data, hash=content_hash(data))


def changes(old: Mapping[ResourceKey, EncodedResource], new: SnapshotState) -> Changes:
    """What a holder of `old` needs to reach `new`. Endpoints lost from a cluster are listed where they were withdrawn on purpose."""
    changed: list[EncodedResource] = []
    removals: list[EndpointRemoval] = []
    for key, encoded in new.resources.items():
        before = old.get(key)
        if before is encoded or (before is not None and before.hash == encoded.hash):
            continue
        changed.append(encoded)
        if before is not None and isinstance(encoded.resource, Endpoints) and isinstance(before.resource, Endpoints):
            lost = _ids(before.resource) - _ids(encoded.resource)
            explicit = lost & new.withdrawn.get(encoded.resource.name, frozenset())
            if explicit:
                removals.append(EndpointRemoval(cluster=encoded.resource.name, ids=tuple(sorted(explicit))))
    removed = tuple(ResourceName(kind=kind, name=name) for kind, name in old if (kind, name) not in new.resources)
    return Changes(changed=tuple(changed), removed=removed, removed_endpoints=tuple(removals))


def _ids(endpoints: Endpoints) -> frozenset[str]:
    return frozenset(endpoint.id for endpoint in endpoints.endpoints)


def differing(keys: Iterable[ResourceKey], held: Mapping[ResourceKey, EncodedResource], current: SnapshotState) -> bool:
    """Whether a holder of `held` has other content than `current` for any of `keys` (absent on both sides is the same)."""
    for key in keys:
        mine, theirs = current.resources.get(key), held.get(key)
        if mine is theirs:
            continue
        if mine is None or theirs is None or mine.hash != theirs.hash:
            return True
    return False
