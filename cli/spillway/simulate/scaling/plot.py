"""Replicas and waits over time as a picture: one panel a scene, the first seed. One SVG, drawn here; `.html` is a page around it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from spillway.simulate.plot import COLOURS, write_svg
from spillway.simulate.scaling.runs import Point
from spillway.simulate.scaling.watch import need_of

_WIDTH: Final = 960
_LEFT, _RIGHT, _TOP, _GAP = 60, 170, 44, 34
_REPLICAS: Final = 220  # height of the upper part
_WAITS: Final = 110
_PANEL: Final = _TOP + _REPLICAS + _GAP + _WAITS + 40

Curve = Sequence[Point]


def write_plot(path: Path, panels: Mapping[str, Mapping[str, Curve]]) -> None:
    """Writes the plot; each title has its curves by policy. Raises OSError."""
    drawn = [_panel(title, curves, index * _PANEL) for index, (title, curves) in enumerate(panels.items())]
    write_svg(path, _WIDTH, _PANEL * len(drawn), drawn, "spillway simulate --scaling")


def _panel(title: str, curves: Mapping[str, Curve], offset: int) -> str:
    points = [point for curve in curves.values() for point in curve]
    until = max(point.at_seconds for point in points)
    replicas = max(*(point.asked_for for point in points), *(need_of(point.mean) for point in points), 1.0)
    waits = max(1.0, *(point.wait_seconds for point in points))
    right, middle = _WIDTH - _RIGHT, offset + _TOP + _REPLICAS
    bottom = middle + _GAP + _WAITS

    def across(seconds: float) -> float:
        return _LEFT + (right - _LEFT) * seconds / until

    def line(curve: Curve, heights: Sequence[float], colour: str, more: str = "") -> str:
        at = " ".join(f"{across(point.at_seconds):.1f},{height:.1f}" for point, height in zip(curve, heights, strict=True))
        return f'<polyline points="{at}" fill="none" stroke="{colour}" {more}/>'

    parts = [f'<text x="{_LEFT}" y="{offset + 24}" font-weight="bold">{html.escape(title)}</text>']
    for base, top, height, unit in ((middle, replicas, _REPLICAS, "replicas"), (bottom, waits, _WAITS, "wait, s")):
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{base}" y2="{base}" stroke="#888888"/>')
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{base - height}" y2="{base - height}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{base + 4}" text-anchor="end">0</text>')
        parts.append(f'<text x="{_LEFT - 6}" y="{base - height + 4}" text-anchor="end">{top:.0f}</text>')
        parts.append(f'<text x="{_LEFT + 4}" y="{base - height + 14}" fill="#888888">{unit}</text>')
    parts.append(f'<text x="{right}" y="{bottom + 18}" text-anchor="end">{until / 60:.0f} min</text>')
    first = next(iter(curves.values()))
    parts.append(line(first, [middle - _REPLICAS * need_of(p.mean) / replicas for p in first], "#000000", 'stroke-dasharray="4 3"'))
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[(index + 4) % len(COLOURS)]
        wide = f'stroke-width="{2.5 if name.startswith("ours") else 1.2}"'
        parts.append(line(curve, [middle - _REPLICAS * p.asked_for / replicas for p in curve], colour, wide))
        parts.append(line(curve, [bottom - _WAITS * p.wait_seconds / waits for p in curve], colour, wide))
        parts.append(_key(right, offset + _TOP + 12 + 20 * index, name, f'stroke="{colour}" {wide}'))
    parts.append(_key(right, offset + _TOP + 12 + 20 * len(curves), "needed", 'stroke="#000000" stroke-dasharray="4 3"'))
    return "".join(parts)


def _key(right: int, y: int, name: str, style: str) -> str:
    return f'<line x1="{right + 14}" x2="{right + 34}" y1="{y}" y2="{y}" {style}/><text x="{right + 40}" y="{y + 4}">{html.escape(name)}</text>'
