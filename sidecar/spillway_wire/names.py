"""Names that both sides must agree on: headers, paths, request types, outcomes."""

from __future__ import annotations

import enum
from typing import Final

DISCOVERY_PATH: Final = "/v1/discovery"
TOKEN_AUDIENCE: Final = "spillway"  # noqa: S105 - an audience, not a secret

# Between proxies. A client's own `x-spillway-*` headers never pass as ours.
HEADER_PREFIX: Final = "x-spillway-"
HEADER_REASON: Final = "x-spillway-reason"
HEADER_ADMISSION: Final = "x-spillway-admission"
HEADER_DEADLINE: Final = "x-spillway-deadline"  # milliseconds left, decided by the router
HEADER_TOKENS: Final = "x-spillway-prompt-tokens"  # the router's estimate
HEADER_MAX_WAITING: Final = "x-spillway-max-waiting"  # tokens that may wait before a request, by the router's choice
HEADER_REQUEST_ID: Final = "x-request-id"
HEADER_LOAD: Final = "endpoint-load-metrics"
HEADER_LOAD_FORMAT: Final = "endpoint-load-metrics-format"


class RequestType(enum.StrEnum):
    """What a request asks of a model; a backend's capabilities are a set of these."""

    __hash__ = str.__hash__  # the one of Enum is written in Python, and each request looks a few things up by its type

    CHAT = "Chat"
    COMPLETIONS = "Completions"
    EMBEDDINGS = "Embeddings"


class Scorer(enum.StrEnum):
    """What a choice can go by, beside each other with weights. A test holds that each has its scorer."""

    LOAD = "Load"
    IN_FLIGHT = "InFlight"
    QUEUE_DEPTH = "QueueDepth"
    KV_CACHE = "KVCache"
    GPU_UTILIZATION = "GPUUtilization"
    PREFIX_AFFINITY = "PrefixAffinity"
    SESSION_AFFINITY = "SessionAffinity"
    LORA_AFFINITY = "LoRAAffinity"
    LATENCY = "Latency"
    SUCCESS_RATE = "SuccessRate"
    COST = "Cost"


class SchedulingProfile(enum.StrEnum):
    """Scorers and weights by one name."""

    DEFAULT = "Default"
    BALANCED = "Balanced"
    NODE_LOAD = "NodeLoad"
    LEAST_REQUEST = "LeastRequest"
    ROUND_ROBIN = "RoundRobin"


class Provider(enum.StrEnum):
    """What kind of engine or service a backend is: which metrics it has and how it is asked."""

    VLLM = "VLLM"
    SGLANG = "SGLang"
    TGI = "TGI"
    TRTLLM = "TRTLLM"
    TRITON = "Triton"
    LLAMACPP = "LlamaCpp"
    OPENAI_COMPATIBLE = "OpenAICompatible"


class Role(enum.StrEnum):
    """What a proxy process does: `sidecar` has a route and an inbound listener, `gateway` the route listener only."""

    SIDECAR = "sidecar"
    GATEWAY = "gateway"


class Admission(enum.StrEnum):
    """What an inbound listener answers at once, in an interim response."""

    ADMITTED = "admitted"
    QUEUED = "queued"
    REFUSED = "refused"
    DECLINED = "declined"  # not full, but another place is better: more waits than `HEADER_MAX_WAITING` allows


class DiversionCause(enum.StrEnum):
    """Why traffic goes past a priority; also the reason that the route's condition carries."""

    __hash__ = str.__hash__

    ERROR_RATE = "ErrorRate"
    LATENCY = "Latency"
    WAIT = "PredictedWait"
