"""Results in words and figures: one row a policy, the mean over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from spillway.simulate.experiment import Result

# Heading, figure, how it is shown.
_COLUMNS = (
    ("TTFT-P50", "ttft_p50_seconds", "{:.3f}"),
    ("P90", "ttft_p90_seconds", "{:.3f}"),
    ("P99", "ttft_p99_seconds", "{:.3f}"),
    ("E2E-P99", "e2e_p99_seconds", "{:.2f}"),
    ("GOOD%", "goodput_ratio", "{:.1%}"),
    ("FAILED%", "failed_ratio", "{:.2%}"),
    ("HITS%", "hit_ratio", "{:.1%}"),
    ("BUSIEST", "worst_share", "{:.2f}x"),
    ("FAULTY%", "faulty_share", "{:.2%}"),
    ("DECLINED%", "declined_ratio", "{:.1%}"),
    ("CYCLE", "autocorrelation", "{:.2f}"),
)
NOTES = """\
seconds, means over the seeds; GOOD%: first token within {slo:g} s, and an end; HITS%: of requests with a prefix; BUSIEST: traffic of the busiest endpoint
against its fair share; CYCLE: highest autocorrelation of an endpoint's waiting tokens past the report interval"""


def summary(results: Sequence[Result]) -> dict[str, float | None]:
    """The mean of each figure; None where any run has none."""
    names = [figure for _, figure, _ in _COLUMNS] + ["requests", "preempted"]
    means: dict[str, float | None] = {}
    for name in names:
        values = [getattr(result.figures, name) for result in results]
        mean = None if any(value is None for value in values) else sum(values) / len(values)
        means[name] = None if mean is None or math.isnan(mean) else mean
    return means


def table(rows: Sequence[tuple[str, dict[str, float | None]]], baseline: str | None) -> str:
    """A table; with a baseline's name, p99 against its too."""
    columns = [column for column in _COLUMNS if any(figures[column[1]] is not None for _, figures in rows)]
    base = next((figures["ttft_p99_seconds"] for name, figures in rows if name == baseline), None)
    lines = [["POLICY", *(heading for heading, _, _ in columns), *(["P99-RATIO"] if base else [])]]
    for name, figures in rows:
        line = [name]
        for _, figure, form in columns:
            value = figures[figure]
            line.append("-" if value is None else form.format(value).rstrip("%") if "%" in form else form.format(value))
        if base:
            p99 = figures["ttft_p99_seconds"]
            line.append("-" if p99 is None else f"{p99 / base:.2f}")
        lines.append(line)
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]], left: int = 1) -> str:
    """Lines of cells as columns; the first `left` columns begin at the left, the others end at the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )
