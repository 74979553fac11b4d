"""The picker among backends: one is drawn by its share, the others follow in order, for when it has no room."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def drawn(items: tuple[T, ...], shares: Sequence[float], draw: float) -> tuple[T, ...]:
    """The items with one drawn in front; `draw` is chance in [0, 1)."""
    point = draw * sum(shares)
    for index, share in enumerate(shares):
        point -= share
        if point < 0.0:
            return (items[index], *items[:index], *items[index + 1 :]) if index else items
    return items
