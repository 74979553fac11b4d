"""What a proxy says about load and traffic.

Caps are part of the type: a value that is negative, above its cap or not finite does not decode (JSON has no NaN), so one
lying proxy is refused at the door and counted, and never reaches a sum.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=0, le=1_000_000)]
Total = Annotated[int, Meta(ge=0, le=1_000_000_000_000)]
TokenCount = Annotated[int, Meta(ge=0, le=10_000_000_000)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=0, le=1e9)]

# Upper bounds in seconds of the TTFT histogram's buckets; one more bucket takes the rest.
TTFT_BUCKETS_SECONDS: Final = (
    0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 60.0,
)  # fmt: skip


class Load(Struct, frozen=True, omit_defaults=True):
    """One endpoint's load as the inbound listener before it sees it. None is unknown, never zero."""

    in_flight: Count = 0  # requests at the engine
    queued: Count = 0  # requests waiting in the inbound listener
    in_flight_tokens: TokenCount = 0  # estimated prompt tokens of both
    max_concurrency: Count = 0
    tokens_per_second: Rate | None = None  # output tokens, over the last interval
    engine_up: bool = True
    draining: bool = False
    engine_waiting: Count | None = None
    engine_running: Count | None = None
    kv_cache_ratio: Ratio | None = None
    gpu_ratio: Ratio | None = None
    gpu_memory_ratio: Ratio | None = None
    cpu_ratio: Ratio | None = None  # of the node, as is the next
    memory_ratio: Ratio | None = None
    adapters: Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=32)] = ()  # LoRA adapters that are loaded
    waiting_tokens: TokenCount | None = None  # of `in_flight_tokens`, those of requests without a first token
    place_tokens: TokenCount | None = None  # what one more request would wait for a place in the engine, in tokens of prompt


class BackendTraffic(Struct, frozen=True, omit_defaults=True):
    """Counters since the last report, of one route's rule and backend. `ttft` has one count a bucket, or is empty."""

    route: Annotated[str, Meta(max_length=320)]
    rule: Annotated[str, Meta(max_length=320)]
    cluster: Annotated[str, Meta(max_length=320)]
    requests: Total = 0  # finished
    errors: Total = 0  # finished with a 5xx or an interrupted body
    retries: Total = 0
    input_tokens: Total = 0
    output_tokens: Total = 0
    ttft: Annotated[tuple[Total, ...], Meta(max_length=len(TTFT_BUCKETS_SECONDS) + 1)] = ()


class RouteErrors(Struct, frozen=True, omit_defaults=True):
    """Requests that a route refused or lost before any backend was chosen, since the last report."""

    route: Annotated[str, Meta(max_length=320)]
    requests: Total = 0


class Demand(Struct, frozen=True, omit_defaults=True):
    """What one router has under way at a cluster: its own picture, gauges at the time of the report but for `arrived_tokens`.

    Tokens are of the prompt and of the answer, as far as they are known and else as they are expected. A request that is tried
    again is asked once.
    """

    cluster: Annotated[str, Meta(max_length=320)]
    in_flight: Count = 0
    in_flight_tokens: TokenCount = 0  # of the prompts alone
    held: Count = 0  # requests that wait here since the cluster has no endpoint
    held_tokens: TokenCount = 0
    arrived_tokens: Total = 0  # of requests that came for it since the last report


class ClusterProblem(Struct, frozen=True):
    """Why this proxy can send nothing to a cluster, e.g. a secret that it does not find. Names, never values."""

    cluster: Annotated[str, Meta(max_length=320)]
    reason: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=1024)]


class Diversion(Struct, frozen=True):
    """A priority of a rule that this router sends traffic past at the time of the report, all of it or the excess."""

    route: Annotated[str, Meta(max_length=320)]
    rule: Annotated[str, Meta(max_length=320)]
    priority: Annotated[int, Meta(ge=0, le=100)]
    cause: Annotated[str, Meta(max_length=64)]  # a `DiversionCause`; a reader takes one that it does not know as text
    message: Annotated[str, Meta(max_length=256)]  # e.g. "predicted wait 3.1 s > 2 s", as it was when it began
