"""Messages of the stream: JSON text frames, one message each, told apart by `type`.

Proxy to operator: `Hello` first, then `Ack`, `Nack`, `Report`, `Pong`, `Bye`. Operator to proxy: `Update`, `Ping`.
Resources in an `Update` stay undecoded (`msgspec.Raw`): the operator splices bytes that it encoded once for all
subscribers, and a proxy decodes each by itself so that an error names the resource it is in.
"""

from __future__ import annotations

import enum
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from spillway_wire.loads import BackendTraffic, ClusterProblem, Demand, Diversion, Load, RouteErrors
from spillway_wire.names import Role

MAX_FRAME_FROM_PROXY_BYTES = 256 * 1024
MAX_FRAME_FROM_OPERATOR_BYTES = 64 * 1024 * 1024

Text = Annotated[str, Meta(max_length=320)]
LongText = Annotated[str, Meta(max_length=2048)]
Version = Annotated[str, Meta(max_length=64)]


class Node(Struct, frozen=True):
    """Who speaks. `id` is unique among live proxies and, for a sidecar, the id of its own endpoint; `boot_id` is made at start."""

    id: Annotated[str, Meta(min_length=1, max_length=320)]
    role: Role
    boot_id: Annotated[str, Meta(min_length=1, max_length=64)]
    namespace: Text = ""
    pod: Text = ""
    version: Text = ""


class Hello(Struct, frozen=True, tag="hello"):
    """First frame. `resume_version`: the version this proxy has in force, if any."""

    node: Node
    resume_version: Version | None = None


class Ack(Struct, frozen=True, tag="ack"):
    """The proxy runs `version`."""

    version: Version
    nonce: Version


class FaultReason(enum.StrEnum):
    """Why a snapshot is refused. A reader takes reasons that it does not know as text."""

    UNDECODABLE = "Undecodable"  # not a resource, or a value out of its bounds
    DUPLICATE = "Duplicate"  # two of what must be unique: a resource, rule or endpoint id
    DANGLING_REFERENCE = "DanglingReference"
    MODEL_CLAIMED_TWICE = "ModelClaimedTwice"  # by two routes of one namespace
    STALE_EPOCH = "StaleEpoch"  # from a leader older than one that was heard already
    BASE_MISMATCH = "BaseMismatch"  # changes to a version that is not in force; the operator answers with a full update
    ENDPOINTS_LOST = "EndpointsLost"  # more than half of a cluster gone without a word
    REJECTED = "Rejected"  # the proxy could not put it into force


class Fault(Struct, frozen=True):
    """One thing wrong in a snapshot: where (`route/default/chat.rules[0].backends[1]`), why (a constant), what."""

    path: LongText
    reason: Text
    message: LongText


class Nack(Struct, frozen=True, tag="nack"):
    """The proxy refuses the update with `nonce` and keeps `version` (None: it has none)."""

    version: Version | None
    nonce: Version
    errors: Annotated[tuple[Fault, ...], Meta(min_length=1, max_length=64)]


class Report(Struct, frozen=True, tag="report"):
    """A load report: `load` is of the sender's own endpoint (sidecars), the rest is what its route listener saw since the last."""

    boot_id: Text
    sequence: Annotated[int, Meta(ge=0)]
    load: Load | None = None
    traffic: Annotated[tuple[BackendTraffic, ...], Meta(max_length=4096)] = ()
    refused: Annotated[tuple[RouteErrors, ...], Meta(max_length=1024)] = ()
    demand: Annotated[tuple[Demand, ...], Meta(max_length=1024)] = ()
    problems: Annotated[tuple[ClusterProblem, ...], Meta(max_length=1024)] = ()
    diversions: Annotated[tuple[Diversion, ...], Meta(max_length=1024)] = ()


class Pong(Struct, frozen=True, tag="pong"):
    """Echo of a ping."""

    id: int


class Bye(Struct, frozen=True, tag="bye"):
    """The proxy is leaving: it drains and takes no new requests."""

    reason: Text = ""
    draining: bool = True


class EndpointRemoval(Struct, frozen=True):
    """Endpoints that left a cluster on purpose. Losing more than half of a cluster without these is refused."""

    cluster: Text
    ids: tuple[str, ...]


class ResourceName(Struct, frozen=True):
    """Address of a resource that is gone."""

    kind: Text
    name: Text


class Update(Struct, frozen=True, tag="update"):
    """Snapshot change. `full`: `resources` is everything; otherwise the ones that changed since `base`, with `removed` gone.

    `settled` belongs to a full update: the operator has watched for long enough to vouch that what it does not list is gone
    on purpose. Without it, a full update counts like any other when it takes away more than half of a cluster.
    `routers`: live route listeners.
    """

    version: Version
    nonce: Version
    epoch: Annotated[int, Meta(ge=0)]
    resources: tuple[msgspec.Raw, ...] = ()
    removed: tuple[ResourceName, ...] = ()
    removed_endpoints: tuple[EndpointRemoval, ...] = ()
    base: Version | None = None
    full: bool = False
    settled: bool = False
    routers: Annotated[int, Meta(ge=1)] = 1


class Ping(Struct, frozen=True, tag="ping"):
    """Keeps the stream alive and carries the live router count, which changes without a snapshot change."""

    id: int
    routers: Annotated[int, Meta(ge=1)] = 1


FromProxy = Hello | Ack | Nack | Report | Pong | Bye
FromOperator = Update | Ping

_ENCODER = msgspec.json.Encoder()
_FROM_PROXY: msgspec.json.Decoder[FromProxy] = msgspec.json.Decoder(FromProxy)
_FROM_OPERATOR: msgspec.json.Decoder[FromOperator] = msgspec.json.Decoder(FromOperator)


def encode(message: FromProxy | FromOperator) -> bytes:
    """One frame's UTF-8 JSON."""
    return _ENCODER.encode(message)


def decode_from_proxy(frame: bytes | str) -> FromProxy:
    """A proxy's message. Raises `msgspec.DecodeError` (malformed) or its subclass `ValidationError` (naming the path)."""
    return _FROM_PROXY.decode(frame)


def decode_from_operator(frame: bytes | str) -> FromOperator:
    """An operator's message; resources inside stay raw. Raises as `decode_from_proxy`."""
    return _FROM_OPERATOR.decode(frame)
