"""Applies an engine's table to its exposition text.

Queues are summed over label sets (each data-parallel rank and model has its own), ratios are averaged and clamped to 1.
The first metric of a list that has readable samples wins. What is missing, unreadable or beyond the wire's caps is unknown,
never 0: a router takes 0 for an invitation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from spillway_sidecar.engines.exposition import read_samples
from spillway_sidecar.engines.tables import AdapterList, Metric, engine_table
from spillway_wire.names import Provider

_MAX_ADAPTERS = 32  # the wire's caps, as is the next
_MAX_ADAPTER_LENGTH = 256
_MAX_COUNT = 1_000_000  # the wire's cap on a count; a load report beyond it would be refused whole


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What an engine said of itself: requests waiting and running, share of the KV cache in use. None is unknown."""

    waiting: int | None = None
    running: int | None = None
    kv_cache_ratio: float | None = None
    adapters: tuple[str, ...] = ()  # LoRA adapters that it has loaded

    @property
    def known(self) -> bool:
        """Whether the engine said anything that could be used."""
        return not (self.waiting is None and self.running is None and self.kv_cache_ratio is None)


def engine_load(provider: Provider, exposition: bytes) -> EngineLoad:
    """The load in an engine's metrics text. Any bytes are accepted; none raise."""
    table = engine_table(provider)
    return EngineLoad(
        waiting=_count(exposition, table.waiting),
        running=_count(exposition, table.running),
        kv_cache_ratio=_ratio(exposition, table.kv_cache),
        adapters=_adapters(exposition, table.adapters) if table.adapters is not None else (),
    )


def _count(exposition: bytes, metrics: Iterable[Metric]) -> int | None:
    values = _first(exposition, metrics)
    total = sum(values)
    return round(total) if values and total <= _MAX_COUNT else None


def _ratio(exposition: bytes, metrics: Iterable[Metric]) -> float | None:
    values = _first(exposition, metrics)
    return sum(min(value, 1.0) for value in values) / len(values) if values else None


def _adapters(exposition: bytes, listed: AdapterList) -> tuple[str, ...]:
    """The names in the newest sample: the engine writes another one whenever its lists change, and its value is the time."""
    samples = read_samples(exposition, listed.name)
    if not samples:
        return ()
    newest = max(samples, key=lambda sample: sample.value)
    named = {name.strip(): None for label in listed.labels for name in newest.labels.get(label, "").split(",")}
    return tuple(name for name in named if 0 < len(name) <= _MAX_ADAPTER_LENGTH)[:_MAX_ADAPTERS]


def _first(exposition: bytes, metrics: Iterable[Metric]) -> list[float]:
    """The values of the first metric that has any."""
    for metric in metrics:
        samples = read_samples(exposition, metric.name) or ()
        values = [sample.value for sample in samples if all(sample.labels.get(name, "") == value for name, value in metric.labels)]
        if values:
            return values
    return []
