"""Load on responses, in ORCA's HTTP form: `endpoint-load-metrics: JSON {...}`.

An inbound listener writes its `Load` so; routers read it, and also what engines send themselves (vLLM, Triton: JSON or
`text`, `named_metrics.kv_cache_usage_perc=0.4, ...`). Whatever does not parse or is out of range is no load at all.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from spillway_wire.loads import Load

MAX_HEADER_BYTES = 2048
_Value = Annotated[float, Meta(ge=0, le=1e12)]


class _Orca(Struct, frozen=True):
    named_metrics: dict[str, _Value] = {}


_DECODER = msgspec.json.Decoder(_Orca)
_ENCODER = msgspec.json.Encoder()
_OPTIONAL = (
    ("waiting_tokens", "waiting_tokens"),
    ("engine_waiting", "num_requests_waiting"),
    ("engine_running", "num_requests_running"),
    ("kv_cache_ratio", "kv_cache_usage_perc"),
    ("gpu_ratio", "gpu_utilization"),
    ("tokens_per_second", "tokens_per_second"),
)


def encode_load(load: Load) -> bytes:
    """The header's value for a load. `application_utilization` is requests held over the concurrency limit."""
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
    utilization = (load.in_flight + load.queued) / load.max_concurrency if load.max_concurrency else 0.0
    return b"JSON " + _ENCODER.encode({"application_utilization": round(utilization, 4), "named_metrics": named})


def decode_load(value: bytes) -> Load | None:
    """The load in a header's value, or None if it is none we trust: too long, malformed, not finite, negative, beyond caps."""
    if len(value) > MAX_HEADER_BYTES:
        return None
    try:
        named = _DECODER.decode(value[5:]).named_metrics if value[:5].upper() == b"JSON " else _text(value)
        return msgspec.convert(_fields(named), Load)
    except (msgspec.DecodeError, ValueError, OverflowError):
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
