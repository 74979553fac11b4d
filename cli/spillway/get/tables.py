"""Rows of text in columns, as kubectl lays them out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from spillway_operator.api.columns import header, row

GAP = "   "
DEFAULT_NAMESPACE = "default"

Item = Mapping[str, Any]


def namespace_of(item: Item) -> str:
    """An object's namespace."""
    return str(item["metadata"].get("namespace") or DEFAULT_NAMESPACE)


def cells(kind: str, items: Sequence[Item], *, now: datetime, wide: bool = False) -> list[list[str]]:
    """Header and a row an object, sorted by namespace and name; the namespace is a column only where it tells something."""
    spread = any(namespace_of(item) != DEFAULT_NAMESPACE for item in items)
    rows = [(["NAMESPACE"] if spread else []) + header(kind, wide=wide)]
    ordered = sorted(items, key=lambda item: (namespace_of(item), str(item["metadata"]["name"])))
    return rows + [([namespace_of(item)] if spread else []) + row({"kind": kind, **item}, now=now, wide=wide) for item in ordered]


def widths_of(rows: Iterable[Sequence[str]], at_least: Sequence[int] = ()) -> list[int]:
    """The width of each column."""
    widths = list(at_least)
    for line in rows:
        widths += [0] * (len(line) - len(widths))
        widths = [max(width, len(cell)) for width, cell in zip(widths, [*line, *[""] * (len(widths) - len(line))], strict=True)]
    return widths


def line_of(row_cells: Sequence[str], widths: Sequence[int]) -> str:
    """One row, without blanks at its end."""
    return GAP.join(cell.ljust(width) for cell, width in zip(row_cells, widths, strict=False)).rstrip()


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines."""
    widths = widths_of(rows)
    return [line_of(line, widths) for line in rows]
