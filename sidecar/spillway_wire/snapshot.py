"""Snapshot resources: what an operator tells a proxy.

Four kinds, each addressed by `(kind, name)` and hashed by content. Names of routes and clusters are `namespace/name`;
`Endpoints` and `Weights` carry the name of the cluster or route they belong to. Everything a request needs is here: a proxy
compiles the resources once when a snapshot is swapped in and asks nobody during a request.
"""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from spillway_wire.names import Provider, RequestType, SchedulingProfile, Scorer

Name = Annotated[str, Meta(min_length=1, max_length=320)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
Tokens = Annotated[int, Meta(ge=0, le=10_000_000)]


class HeaderMatch(Struct, frozen=True):
    """Exact match of one request header; `name` is lower case."""

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    value: Annotated[str, Meta(max_length=1024)]


class TokenRange(Struct, frozen=True):
    """Inclusive range of the estimated prompt size; None is unbounded."""

    min: Tokens | None = None
    max: Tokens | None = None


class Match(Struct, frozen=True):
    """All that is given must hold; an empty tuple or None matches everything."""

    request_types: tuple[RequestType, ...] = ()
    headers: tuple[HeaderMatch, ...] = ()
    prompt_tokens: TokenRange | None = None


class BackendRef(Struct, frozen=True):
    """One backend of a rule. Lower `priority` first; `weight` divides traffic within a priority."""

    cluster: Name
    priority: Annotated[int, Meta(ge=0, le=100)] = 0
    weight: Annotated[int, Meta(ge=0, le=1_000_000)] = 1
    model_override: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class Fallback(Struct, frozen=True):
    """A priority is left for the next one while it is worse than this; None is no bound."""

    error_rate_percent: Annotated[int, Meta(ge=1, le=99)] | None = None
    latency_p95_seconds: Seconds | None = None  # to the first byte of the body


class Spill(Struct, frozen=True):
    """What would wait longer than this at one priority goes to the next."""

    max_wait_seconds: Seconds


class ScorerWeight(Struct, frozen=True):
    """How much a scorer counts beside the others."""

    name: Scorer
    weight: Annotated[int, Meta(ge=0, le=1000)] = 1


class Scheduling(Struct, frozen=True):
    """How backends and endpoints are chosen: a profile, and scorers that change its weights. `session_header` names a request's session."""

    profile: SchedulingProfile = SchedulingProfile.DEFAULT
    scorers: Annotated[tuple[ScorerWeight, ...], Meta(max_length=16)] = ()
    session_header: Annotated[str, Meta(min_length=1, max_length=128)] = "x-session-id"


class Cost(Struct, frozen=True):
    """What a backend's tokens cost, in some currency that all backends of a rule share."""

    input_per_million_tokens: Annotated[float, Meta(ge=0, le=1e9)]
    output_per_million_tokens: Annotated[float, Meta(ge=0, le=1e9)]


class Rule(Struct, frozen=True):
    """First matching rule wins; a rule without matches takes the rest."""

    name: Name
    backends: Annotated[tuple[BackendRef, ...], Meta(max_length=16)]
    matches: Annotated[tuple[Match, ...], Meta(max_length=16)] = ()
    fallback: Fallback | None = None
    spill: Spill | None = None
    scheduling: Scheduling | None = None  # in place of the route's


class Timeouts(Struct, frozen=True):
    """Seconds: to the first byte of the body, between bytes of a stream, for the whole request, for a connection, and for a sidecar's admission answer."""

    first_token_seconds: Seconds = 60.0
    stream_idle_seconds: Seconds = 60.0
    request_seconds: Seconds = 600.0
    connect_seconds: Seconds = 2.0
    admission_seconds: Seconds = 0.1


class Retries(Struct, frozen=True):
    """Attempts in all, the shares of requests that may be retries and hedges, and whether a stream that broke off goes on elsewhere."""

    max_attempts: Annotated[int, Meta(ge=1, le=5)] = 2
    budget_percent: Annotated[int, Meta(ge=0, le=100)] = 10
    hedge_percent: Annotated[int, Meta(ge=0, le=100)] = 2
    continue_streams: bool = False


class HeaderPriority(Struct, frozen=True):
    """What one value of the priority header stands for; higher goes first."""

    value: Annotated[str, Meta(min_length=1, max_length=128)]
    priority: Annotated[int, Meta(ge=-100, le=100)]


HeaderName = Annotated[str, Meta(min_length=1, max_length=128)]


class FlowControl(Struct, frozen=True):
    """The queue at a router for requests that no endpoint has room for. `max_requests` 0 is none. Header names are lower case."""

    max_requests: Annotated[int, Meta(ge=0, le=10_000)] = 256
    max_bytes: Annotated[int, Meta(ge=1, le=1 << 40)] = 64 * 1024 * 1024
    max_wait_seconds: Seconds = 10.0
    priority_header: HeaderName = "x-llm-d-inference-objective"
    priorities: Annotated[tuple[HeaderPriority, ...], Meta(max_length=32)] = ()
    fairness_header: HeaderName = "x-llm-d-inference-fairness-id"


class Route(Struct, frozen=True, tag="route", tag_field="kind"):
    """Which model names clients send, and the rules that lead them to clusters."""

    name: Name
    models: Annotated[tuple[str, ...], Meta(min_length=1, max_length=64)]
    rules: Annotated[tuple[Rule, ...], Meta(min_length=1, max_length=32)]
    generation: int = 0
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    flow_control: FlowControl = FlowControl()
    scheduling: Scheduling | None = None


class SecretKeyRef(Struct, frozen=True):
    """Where a proxy finds a secret. The value never enters a snapshot."""

    name: Annotated[str, Meta(min_length=1, max_length=253)]
    key: Annotated[str, Meta(min_length=1, max_length=253)]


class External(Struct, frozen=True):
    """A server outside: one address, an optional path prefix before `/chat/completions`, an optional bearer key.

    `allowed_networks`: where its addresses may be although they are not of the public internet.
    """

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port
    tls: bool = True
    path_prefix: Annotated[str, Meta(max_length=512, pattern=r"^(/[!-.0-~]+)*$")] = "/v1"
    auth: SecretKeyRef | None = None
    allowed_networks: Annotated[tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...], Meta(max_length=1024)] = ()


class Limits(Struct, frozen=True):
    """Per endpoint: requests in flight at the engine and requests waiting before it."""

    max_concurrency: Annotated[int, Meta(ge=1, le=100_000)] = 256
    max_queue: Annotated[int, Meta(ge=0, le=100_000)] = 128


class Health(Struct, frozen=True):
    """Active check of the engine by the inbound listener in front of it."""

    path: Annotated[str, Meta(max_length=512, pattern=r"^/[!-~]*$")] = "/health"
    interval_seconds: Seconds = 5.0
    timeout_seconds: Seconds = 1.0


class Cluster(Struct, frozen=True, tag="cluster", tag_field="kind"):
    """A backend as a proxy sees it. `hold_seconds`: how long a request waits for its first endpoint while there is none; 0 refuses it."""

    name: Name
    provider: Provider
    model: Annotated[str, Meta(min_length=1, max_length=256)]
    capabilities: tuple[RequestType, ...] = tuple(RequestType)
    limits: Limits = Limits()
    health: Health = Health()
    external: External | None = None
    cost: Cost | None = None
    hold_seconds: Annotated[float, Meta(ge=0, le=86_400)] = 0.0


class Endpoint(Struct, frozen=True):
    """One place a cluster's requests can go. `inbound`: a sidecar listens there and gives an admission answer."""

    id: Name  # the proxy's node id where `inbound`
    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port
    inbound: bool = False
    draining: bool = False


class Endpoints(Struct, frozen=True, tag="endpoints", tag_field="kind"):
    """The endpoints of the cluster `name`. An external cluster has one: its own host."""

    name: Name
    endpoints: Annotated[tuple[Endpoint, ...], Meta(max_length=20_000)] = ()


class RuleWeights(Struct, frozen=True):
    """Effective weights of one rule's backends by cluster name; a missing one keeps its declared weight."""

    rule: Name
    weights: dict[str, Annotated[float, Meta(ge=0, le=1_000_000)]]


class Weights(Struct, frozen=True, tag="weights", tag_field="kind"):
    """Effective weights of the route `name`, as the operator corrects them by load."""

    name: Name
    rules: tuple[RuleWeights, ...] = ()


Resource = Route | Cluster | Endpoints | Weights
ResourceKey = tuple[str, str]  # (kind, name)

_ENCODER = msgspec.json.Encoder(order="deterministic")
_DECODER: msgspec.json.Decoder[Resource] = msgspec.json.Decoder(Resource)


def key_of(resource: Resource) -> ResourceKey:
    """The `(kind, name)` that addresses a resource, e.g. `("route", "default/chat")`."""
    return type(resource).__struct_config__.tag, resource.name  # type: ignore[return-value]


def encode_resource(resource: Resource) -> bytes:
    """The canonical JSON of a resource: equal resources encode to equal bytes."""
    return _ENCODER.encode(resource)


def decode_resource(data: bytes | msgspec.Raw) -> Resource:
    """The resource in canonical or any other JSON form. Raises `msgspec.ValidationError` naming the path, or `DecodeError`."""
    return _DECODER.decode(data)


def content_hash(encoded: bytes) -> str:
    """16 hex digits over the canonical bytes; equal content has equal hashes."""
    return hashlib.blake2b(encoded, digest_size=8).hexdigest()
