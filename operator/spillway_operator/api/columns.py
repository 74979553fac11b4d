"""The columns that a list of objects shows, in `kubectl get` and in ours alike.

One table a kind. The CRDs' `additionalPrinterColumns` come from it, and so do the rows here, by the same JSONPaths: a column is
one path, so figures that are shown as a pair or with a unit are strings in `status.summary`. Priority 0 is the usual table, 1 the wide
one.

Of JSONPath there is what the columns use: fields, and `[?(@.field=="value")]` to pick the one entry of a list. As in kubectl, a
value that is not there is an empty cell, and a date shows as its age.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

NORMAL: Final = 0
WIDE: Final = 1


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its header, where its value is, and what it means."""

    name: str
    path: str
    type: Literal["string", "integer", "date"]
    description: str
    priority: int = NORMAL


_AGE = Column("Age", ".metadata.creationTimestamp", "date", "Time since the object was made.")
_REASON = Column(
    "Reason", '.status.conditions[?(@.type=="Ready")].reason', "string", "Why the object is ready or not, as a constant.", WIDE
)

BACKEND_COLUMNS: Final = (
    Column("Model", ".spec.model", "string", "Name of the model as it is sent upstream."),
    Column("Provider", ".spec.provider", "string", "What serves the model."),
    Column("Ready", ".status.summary.endpoints", "string", "Endpoints that take requests, of all."),
    Column("Queue", ".status.load.queueDepth", "integer", "Requests that wait before or in the engines."),
    Column("GPU%", ".status.load.gpuUtilizationPercent", "integer", "GPU utilisation, mean over endpoints."),
    Column("Replicas", ".status.summary.replicas", "string", "Replicas that there are, and that there should be."),
    Column("KV%", ".status.load.kvCachePercent", "integer", "Use of the KV cache, mean over endpoints.", WIDE),
    Column("Tok/s", ".status.load.tokensPerSecond", "integer", "Output tokens per second, all endpoints together.", WIDE),
    Column("$/MTok", ".status.cost.perMillionTokens", "string", "Cost of a million tokens, as measured.", WIDE),
    Column("Scaling", '.status.conditions[?(@.type=="ScalingActive")].reason', "string", "Why there are so many replicas.", WIDE),
    _REASON,
    _AGE,
)

ROUTE_COLUMNS: Final = (
    Column("Models", ".status.summary.models", "string", "Model names that clients send."),
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "string", "Whether requests for the models are served."),
    Column("Backends", ".status.summary.backends", "string", "Ready backends, of all that the rules name."),
    Column("Synced", ".status.summary.synced", "string", "Proxies that run this generation of the route, of all."),
    Column("RPS", ".status.traffic.requestsPerSecond", "string", "Requests per second."),
    Column("TTFT-P95", ".status.summary.ttftP95", "string", "Time to the first token that 95 percent of requests stay within."),
    Column("Err%", ".status.traffic.errorPercent", "string", "Share of requests that failed."),
    Column("Weights", ".status.summary.weights", "string", "Backends and the share of the requests that each got lately.", WIDE),
    Column("Active", ".status.summary.active", "string", "Fallback or spill under way: rules, and why.", WIDE),
    _REASON,
    _AGE,
)

COLUMNS: Final[Mapping[str, Sequence[Column]]] = {"ModelBackend": BACKEND_COLUMNS, "ModelRoute": ROUTE_COLUMNS}

_STEP: Final = re.compile(r'\.(?P<field>[A-Za-z][A-Za-z0-9]*)|\[\?\(@\.(?P<key>[A-Za-z]+)=="(?P<value>[^"]*)"\)\]')


def header(kind: str, *, wide: bool = False) -> list[str]:
    """Column headers of a kind's table, the object's name first."""
    return ["NAME", *(column.name.upper() for column in _shown(kind, wide=wide))]


def row(item: Mapping[str, Any], *, now: datetime, wide: bool = False) -> list[str]:
    """One object's cells under `header`; `item` is the object as plain data."""
    return [str(item["metadata"]["name"]), *(cell(column, item, now=now) for column in _shown(item["kind"], wide=wide))]


def cell(column: Column, item: Mapping[str, Any], *, now: datetime) -> str:
    """What a column shows of an object."""
    value = evaluate(column.path, item)
    if value is None:
        return ""
    if column.type == "date":
        return _age(str(value), now)
    # A cell is one line, as kubectl cuts it.
    first, newline, _ = str(value).partition("\n")
    return first + "..." if newline else first


def evaluate(path: str, item: Mapping[str, Any]) -> Any:
    """The value that a JSONPath leads to, or None. Raises `ValueError` for a path of another form than the columns use."""
    value: Any = item
    position = 0
    while position < len(path):
        step = _STEP.match(path, position)
        if step is None:
            raise ValueError(f"{path!r} is not a path that columns use, from character {position} on")
        position = step.end()
        if field := step["field"]:
            value = value.get(field) if isinstance(value, Mapping) else None
        elif isinstance(value, list):
            value = next((entry for entry in value if isinstance(entry, Mapping) and entry.get(step["key"]) == step["value"]), None)
        else:
            value = None
    return value


def human_duration(seconds: float) -> str:
    """A span as kubectl shows an age: `45s`, `3m20s`, `12m`, `5h2m`, `26h`, `3d4h`, `42d`, `3y12d`."""
    seconds = int(seconds)
    if seconds < 0:
        # Up to a second ahead is a clock that is a little off; more is no age at all.
        return "0s" if seconds >= -1 else "<invalid>"
    minutes, hours, days, years = seconds // 60, seconds // 3600, seconds // 86_400, seconds // (86_400 * 365)
    spans = (
        (seconds < 120, f"{seconds}s"),
        (minutes < 10, _two(minutes, "m", seconds % 60, "s")),
        (minutes < 180, f"{minutes}m"),
        (hours < 8, _two(hours, "h", minutes % 60, "m")),
        (hours < 48, f"{hours}h"),
        (hours < 24 * 8, _two(days, "d", hours % 24, "h")),
        (hours < 24 * 365 * 2, f"{days}d"),
        (hours < 24 * 365 * 8, _two(years, "y", days % 365, "d")),
    )
    return next((text for fits, text in spans if fits), f"{years}y")


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _age(timestamp: str, now: datetime) -> str:
    try:
        made = datetime.fromisoformat(timestamp)
    except ValueError:
        return "<unknown>"
    if made.tzinfo is None:
        made = made.replace(tzinfo=UTC)
    return human_duration((now - made).total_seconds())


def _shown(kind: str, *, wide: bool) -> list[Column]:
    return [column for column in COLUMNS[kind] if wide or column.priority == NORMAL]
