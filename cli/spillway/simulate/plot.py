"""Times to first token as a picture: seconds against the share of requests that are quicker, both by powers of ten.

One SVG, drawn here; as `.html` it is wrapped in a page. Nothing is loaded from anywhere.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from spillway.simulate.experiment import CURVE_SHARES, Result

_WIDTH: Final = 860
_HEIGHT: Final = 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 170, 44, 44
COLOURS: Final = ("#888888", "#b07aa1", "#9c755f", "#f28e2b", "#edc948", "#4e79a7", "#76b7b2", "#d62728", "#2ca02c")
_SHARES: Final = (0.5, 0.9, 0.99, 0.999)


def write_plot(path: Path, by_scene: Mapping[str, Mapping[str, Sequence[Result]]]) -> None:
    """Writes the plot; each scene has a panel of its own. Raises OSError."""
    panels = [
        _panel(scene, {name.rpartition(":")[2]: _mean(results) for name, results in by_policy.items()}, index * _HEIGHT)
        for index, (scene, by_policy) in enumerate(by_scene.items())
    ]
    write_svg(path, _WIDTH, _HEIGHT * len(panels), panels, "spillway simulate")


def write_svg(path: Path, width: int, height: int, parts: Sequence[str], title: str) -> None:
    """Writes one picture of these parts, in a page where the file ends in `.html`. Raises OSError."""
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>{"".join(parts)}</svg>\n'
    )
    if path.suffix == ".html":
        svg = f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title></head><body>{svg}</body></html>\n'
    path.write_text(svg, encoding="utf-8")


def _mean(results: Sequence[Result]) -> list[float]:
    """The mean over seeds at each share; empty where a run has none."""
    curves = [result.curve for result in results if not any(map(math.isnan, result.curve))]
    return [sum(values) / len(values) for values in zip(*curves, strict=True)]


def _panel(scene: str, curves: Mapping[str, Sequence[float]], offset: int) -> str:
    seconds = [value for curve in curves.values() for value in curve if value > 0.0]
    if not seconds:
        return ""
    low, high = math.floor(math.log10(max(1e-3, min(seconds)))), math.ceil(math.log10(max(seconds) * 1.0001))
    right, bottom = _WIDTH - _RIGHT, offset + _HEIGHT - _BOTTOM

    def across(share: float) -> float:
        return _LEFT + (right - _LEFT) * -math.log10(1.0 - share) / -math.log10(1.0 - CURVE_SHARES[-1])

    def up(value: float) -> float:
        height = (math.log10(max(value, 10.0**low)) - low) / (high - low)
        return bottom - height * (_HEIGHT - _TOP - _BOTTOM)

    title = "Time to first token, seconds, by the share of requests that are quicker" + (f": {scene}" if scene else "")
    parts = [f'<text x="{_LEFT}" y="{offset + 24}" font-weight="bold">{html.escape(title)}</text>']
    for power in range(low, high + 1):
        y = up(10.0**power)
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g}</text>')
    for share in _SHARES:
        x = across(share)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{offset + _TOP}" y2="{bottom}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{share * 100:g} %</text>')
    for index, (name, curve) in enumerate(curves.items()):
        colour = COLOURS[index % len(COLOURS)]
        points = " ".join(f"{across(share):.1f},{up(value):.1f}" for share, value in zip(CURVE_SHARES, curve, strict=False))
        width = 3 if name == "ours" else 1.5
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="{width}"/>')
        y = offset + _TOP + 12 + 20 * index
        parts.append(f'<line x1="{right + 14}" x2="{right + 34}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="{width}"/>')
        parts.append(f'<text x="{right + 40}" y="{y + 4}">{html.escape(name)}</text>')
    return "".join(parts)
