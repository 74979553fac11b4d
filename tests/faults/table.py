"""The table that is printed, and a few lines for each row while it runs."""

from __future__ import annotations

from collections.abc import Mapping

from tests.faults.bench import Result

MIB = 1024 * 1024


def table(results: list[Result]) -> str:
    """Markdown: row, bar, figure, n, losses, seed, verdict."""
    lines = ["| fault | bar | figure | n | losses | seed | |", "| --- | --- | --- | --- | --- | --- | --- |"]
    lines += [f"| {r.row} | {r.bar} | {r.figure} | {r.n} | {r.losses} | {r.seed} | {verdict(r)} |" for r in results]
    return "\n".join(lines)


def verdict(result: Result) -> str:
    """`met`, `times missed` where only speed is short of the bar, else `MISSED`."""
    if not result.sound:
        return "MISSED"
    return "met" if result.quick else "times missed"


def describe(result: Result, before: Mapping[str, int], after: Mapping[str, int]) -> str:
    """What a row found, with whatever is wrong."""
    grown = {name: (after[name] - size) / MIB for name, size in before.items() if name in after and size}
    most = max(grown, key=lambda name: grown[name], default="")
    fates = ", ".join(f"{count} {fate}" for fate, count in result.fates.items())
    lines = [
        f"{verdict(result):12} {result.row} (seed {result.seed}, {result.seconds:.0f} s)",
        f"             {result.figure}",
        (
            f"             n {result.n}: {fates}; losses {result.losses}; generator late p99 {result.lag_p99 * 1000:.1f} ms; "
            f"most memory: {most} {grown.get(most, 0):+.1f} MiB"
        ),
    ]
    lines += [f"             leak: {leak}" for leak in result.leaks[:12]]
    lines += [f"             wrong: {request!r}" for request in result.wrong[:8]]
    return "\n".join(lines)
