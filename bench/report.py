"""Cells to tables: medians of the least disturbed rounds, ratios to the bars, each met or missed by how much."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

Cell = dict[str, float]
LEAST_DISTURBED = 3
OURS = "ours"


@dataclass(slots=True)
class Results:
    """Cells as they come in; figures by peer as they are asked for."""

    cells: dict[tuple[str, str], list[Cell]] = field(default_factory=dict)
    peers: list[str] = field(default_factory=list)

    def add(self, peer: str, cell: str, data: Cell) -> None:
        if peer not in self.peers:
            self.peers.append(peer)
        self.cells.setdefault((peer, cell), []).append(data)

    def median(self, peer: str, cell: str, figure: Callable[[Cell], float | None]) -> float | None:
        """Of the three rounds in which other work took least of the machine."""
        rounds = sorted(self.cells.get((peer, cell), []), key=lambda data: data.get("other", 0.0))[:LEAST_DISTURBED]
        values = [value for value in map(figure, rounds) if value is not None]
        return statistics.median(values) if values else None

    def bad(self, peer: str) -> int:
        return sum(
            int(c.get("errors", 0) + c.get("non2xx", 0)) for (name, _), cells in self.cells.items() if name == peer for c in cells
        )


def rate(results: Results, peer: str) -> float | None:
    return results.median(peer, "rate", lambda cell: cell["rps"])


def cpu_per_request(results: Results, peer: str) -> float | None:
    return results.median(peer, "rate", lambda cell: _per(cell["cpu"], cell["requests"] - cell["non2xx"]))


def cpu_per_event(results: Results, peer: str) -> float | None:
    return results.median(peer, "stream", lambda cell: _per(cell["cpu"], cell["events"]))


def event_rate(results: Results, peer: str) -> float | None:
    return results.median(peer, "stream", lambda cell: cell["events_per_s"])


def added_p50(results: Results, peer: str) -> float | None:
    return _added(results, peer, 0)


def added_p99(results: Results, peer: str) -> float | None:
    return _added(results, peer, 2)


def cpu_per_prompt(results: Results, peer: str) -> float | None:
    return results.median(peer, "prompt", lambda cell: _per(cell["cpu"], cell["requests"] - cell["non2xx"]))


def idle_mb(results: Results, peer: str) -> float | None:
    return results.median(peer, "memory", lambda cell: cell["idle_mb"])


def resident_mb(results: Results, peer: str) -> float | None:
    return results.median(peer, "memory", lambda cell: cell["resident_mb"])


def stream_kb(results: Results, peer: str) -> float | None:
    return results.median(peer, "memory", lambda cell: cell.get("stream_kb"))


def _added(results: Results, peer: str, place: int) -> float | None:
    own, base = (results.median(name, "low", lambda cell: cell["lat_us"][place]) for name in (peer, "direct"))
    return None if own is None or base is None or peer == "direct" else own - base


def _per(cpu_seconds: float, count: float) -> float | None:
    return cpu_seconds * 1e6 / count if count and cpu_seconds else None


Figure = Callable[[Results, str], float | None]


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    figure: Figure
    digits: int = 0


COLUMNS = (
    Column("requests/s, 64 connections", rate),
    Column("CPU us/request", cpu_per_request, 1),
    Column("32 KB prompt, CPU us/request", cpu_per_prompt, 1),
    Column("added p50 us", added_p50),
    Column("added p99 us", added_p99),
    Column("events/s, 500 streams", event_rate),
    Column("CPU us/event", cpu_per_event, 1),
    Column("idle MB", idle_mb, 1),
    Column("resident MB", resident_mb, 1),
    Column("KB/open stream", stream_kb, 1),
)
FEATURE_COLUMNS = (COLUMNS[0], COLUMNS[1], COLUMNS[6])


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure of ours, over a peer's where one is named, against a limit."""

    title: str
    figure: Figure
    limit: float
    peer: str | None = None
    at_least: bool = False

    def judge(self, results: Results, why: dict[str, str]) -> tuple[str, str, str]:
        """The bar in words, what was measured, and the verdict."""
        unit = f"x {self.peer}" if self.peer else ""
        wanted = f"{self.title} at {'least' if self.at_least else 'most'} {self.limit:g}{unit}"
        absent = next((name for name in (OURS, self.peer) if name and self.figure(results, name) is None), None)
        ours = self.figure(results, OURS)
        theirs = self.figure(results, self.peer) if self.peer else 1.0
        if absent or ours is None or not theirs:
            return wanted, "-", f"not measured ({why.get(absent or '', 'no figure of ' + str(absent))})"
        value = ours / theirs
        short = 1 - value / self.limit if self.at_least else value / self.limit - 1
        return wanted, f"{value:.2f}{'x' if self.peer else ''}", "met" if short <= 0 else f"missed by {100 * short:.0f} %"


BARS = (
    Bar("requests/s", rate, 1.7, "envoy", at_least=True),
    Bar("requests/s", rate, 3, "vllm-router", at_least=True),
    Bar("requests/s", rate, 3, "sglang-router", at_least=True),
    Bar("requests/s", rate, 5, "aiohttp", at_least=True),
    Bar("CPU per request", cpu_per_request, 1.8, "nginx"),
    Bar("CPU per streamed event", cpu_per_event, 1.3, "nginx"),
    Bar("added p50", added_p50, 1.4, "nginx"),
    Bar("KB per open stream", stream_kb, 10),
    Bar("idle MB", idle_mb, 40),
)


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of Markdown whose source reads as one, too."""
    lines = [list(head), *(list(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def figures(results: Results, columns: tuple[Column, ...], names: list[str], first: str, missing: dict[str, str]) -> str:
    rows = []
    for name in names:
        values = [column.figure(results, name) for column in columns]
        rows.append(
            [
                name,
                *("-" if v is None else f"{v:,.{c.digits}f}" for v, c in zip(values, columns, strict=True)),
                str(results.bad(name)),
            ]
        )
    text = table([first, *(column.title for column in columns), "failed"], rows)
    return "\n".join([text, *(f"\nLeft out: {name} ({why})." for name, why in missing.items())])


def bars(results: Results, missing: dict[str, str]) -> str:
    return table(("bar", "measured", "verdict"), (bar.judge(results, missing) for bar in BARS))
