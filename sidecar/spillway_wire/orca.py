"""Load on responses, in ORCA's HTTP form: `endpoint-load-metrics: JSON {...}`.

An inbound listener writes its `Load` so; routers read it, and also what engines send themselves when they are asked (vLLM, Triton: JSON or
`text`, `named_metrics.kv_cache_usage_perc=0.4, ...`). A client that asks a route listener in the same way gets the load of the endpoint that
served it. Whatever does not parse or is out of range is no load at all.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from spillway_wire.loads import Load

MAX_HEADER_BYTES = 2048
MAX_ADAPTERS_BYTES = 1024  # of these, the names of adapters; what does not fit is left out
_Value = Annotated[float, Meta(ge=0, le=1e12)]


class _Orca(Struct, frozen=True):
    named_metrics: dict[str, _Value] = {}
    adapters: tuple[str, ...] = ()


_DECODER = msgspec.json.Decoder(_Orca)
_ENCODER = msgspec.json.Encoder()
_OPTIONAL = (
    ("waiting_tokens", "waiting_tokens"),
    ("place_tokens", "place_tokens"),
    ("engine_waiting", "num_requests_waiting"),
    ("engine_running", "num_requests_running"),
    ("kv_cache_ratio", "kv_cache_usage_perc"),
    ("gpu_ratio", "gpu_utilization"),
    ("cpu_ratio", "node_cpu_utilization"),
    ("memory_ratio", "node_memory_utilization"),
    ("tokens_per_second", "tokens_per_second"),
)


def encode_load(load: Load) -> bytes:
    """The header's value for a load. `application_utilization` is requests held over the concurrency limit."""
    utilization = (load.in_flight + load.queued) / load.max_concurrency if load.max_concurrency else 0.0
    told: dict[str, object] = {"application_utilization": round(utilization, 4), "named_metrics": _named(load)}
    if load.adapters:
        told["adapters"] = _fitting(load.adapters)
    return b"JSON " + _ENCODER.encode(told)


def encode_load_text(load: Load) -> bytes:
    """The same in the form of text."""
    return ("TEXT " + ", ".join(f"named_metrics.{name}={value:g}" for name, value in _named(load).items())).encode("ascii")


def _fitting(adapters: tuple[str, ...]) -> list[str]:
    kept, left = [], MAX_ADAPTERS_BYTES
    for name in adapters:
        left -= len(name.encode()) + 3
        if left < 0:
            break
        kept.append(name)
    return kept


def _named(load: Load) -> dict[str, float]:
    named: dict[str, float] = {
        "in_flight": load.in_flight,
        "queued": load.queued,
        "in_flight_tokens": load.in_flight_tokens,
        "max_concurrency": load.max_concurrency,
    }
    for field, metric in _OPTIONAL:
        value = getattr(load, field)
        if value is not None:
            named[metric] = value
    if load.draining:
        named["draining"] = 1
    if not load.engine_up:
        named["engine_down"] = 1
    return named


def decode_load(value: bytes) -> Load | None:
    """The load in a header's value, or None if it is none we trust: too long, malformed, not finite, negative, beyond caps."""
    if len(value) > MAX_HEADER_BYTES:
        return None
    try:
        if value[:5].upper() != b"JSON ":
            return msgspec.convert(_fields(_text(value)), Load)
        told = _DECODER.decode(value[5:])
        return msgspec.convert({**_fields(told.named_metrics), "adapters": told.adapters}, Load)
    except (msgspec.DecodeError, ValueError, OverflowError, RecursionError):
        return None


def _fields(named: dict[str, float]) -> dict[str, object]:
    fields: dict[str, object] = {
        name: int(named[name]) for name in ("in_flight", "queued", "in_flight_tokens", "max_concurrency") if name in named
    }
    for field, metric in _OPTIONAL:
        if metric in named:
            value = named[metric]
            fields[field] = int(value) if field.startswith(("engine_", "waiting_")) else float(value)
    fields["draining"] = bool(named.get("draining"))
    fields["engine_up"] = not named.get("engine_down")
    return fields


def _text(value: bytes) -> dict[str, float]:
    """`TEXT named_metrics.a=1, named_metrics.b=0.5`; the leading word is optional, as engines differ."""
    text = value.decode("ascii")
    text = text.removeprefix("TEXT ").removeprefix("text ")
    named: dict[str, float] = {}
    for part in text.split(","):
        name, separator, number = part.strip().partition("=")
        if separator and name.startswith("named_metrics."):
            named[name.removeprefix("named_metrics.")] = float(number)
    if not named:
        raise ValueError("no named metrics")
    return named
