"""Reports that wait for the stream. Pure.

There is room for one. A report that comes while another waits is merged with it: gauges (load, demand, problems) are the
later ones, counters (traffic, what was refused, what came) are summed, so nothing is lost and nothing grows while the operator is away, beyond the number of
different routes and backends. What is too large for a frame leaves in several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import Any, Final

from msgspec.structs import replace

from spillway_wire.loads import BackendTraffic, Demand, RouteErrors
from spillway_wire.messages import MAX_FRAME_FROM_PROXY_BYTES, Report, encode

MAX_TRAFFIC: Final = 4096
MAX_REFUSED: Final = 1024
_MAX_COUNT: Final = 1_000_000_000_000  # the contract's cap of a counter


def merge(earlier: Report, later: Report) -> Report:
    """One report that says what both say."""
    return replace(
        later,
        load=later.load if later.load is not None else earlier.load,
        traffic=tuple(_sum_traffic((*earlier.traffic, *later.traffic)))[:MAX_TRAFFIC],
        refused=tuple(_sum_refused((*earlier.refused, *later.refused)))[:MAX_REFUSED],
        demand=tuple(_sum_demand(earlier.demand, later.demand))[:MAX_REFUSED],
    )


def _sum_traffic(parts: Iterable[BackendTraffic]) -> Iterable[BackendTraffic]:
    sums: dict[tuple[str, str, str], BackendTraffic] = {}
    for part in parts:
        key = (part.route, part.rule, part.cluster)
        known = sums.get(key)
        if known is None:
            sums[key] = part
            continue
        sums[key] = replace(
            known,
            requests=_add(known.requests, part.requests),
            errors=_add(known.errors, part.errors),
            retries=_add(known.retries, part.retries),
            input_tokens=_add(known.input_tokens, part.input_tokens),
            output_tokens=_add(known.output_tokens, part.output_tokens),
            ttft=_add_buckets(known.ttft, part.ttft),
        )
    return sums.values()


def _add(one: int, other: int) -> int:
    return min(_MAX_COUNT, one + other)


def _add_buckets(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    if not one or not other:
        return one or other
    return tuple(_add(mine, theirs) for mine, theirs in zip_longest(one, other, fillvalue=0))


def _sum_refused(parts: Iterable[RouteErrors]) -> Iterable[RouteErrors]:
    sums: dict[str, int] = {}
    for part in parts:
        sums[part.route] = _add(sums.get(part.route, 0), part.requests)
    return (RouteErrors(route=route, requests=requests) for route, requests in sums.items())


def _sum_demand(earlier: Iterable[Demand], later: Iterable[Demand]) -> Iterable[Demand]:
    found = {part.cluster: part for part in later}
    for part in earlier:
        if part.arrived_tokens:
            last = found.get(part.cluster, Demand(part.cluster))
            found[part.cluster] = replace(last, arrived_tokens=_add(last.arrived_tokens, part.arrived_tokens))
    return found.values()


class Outbox:
    """The report that waits, if one does. Boot id and sequence are given when it leaves."""

    def __init__(self, boot_id: str) -> None:
        self._boot_id = boot_id
        self._waiting: Report | None = None
        self._sequence = 0
        self._merged = 0
        self._frames = 0

    def put(self, report: Report) -> None:
        """Leave a report here."""
        if self._waiting is not None:
            self._merged += 1
            report = merge(self._waiting, report)
        self._waiting = report

    def take(self) -> list[bytes]:
        """Frames for all that waits, in order; none when nothing does."""
        report, self._waiting = self._waiting, None
        if report is None:
            return []
        frames = list(self._frames_of(report))
        self._frames += len(frames)
        return frames

    def _frames_of(self, report: Report) -> Iterator[bytes]:
        self._sequence += 1
        frame = encode(replace(report, boot_id=self._boot_id, sequence=self._sequence))
        if len(frame) <= MAX_FRAME_FROM_PROXY_BYTES:
            yield frame
            return
        if len(report.traffic) <= 1:  # the gauges alone are too large: say the load, which is small
            yield encode(Report(boot_id=self._boot_id, sequence=self._sequence, load=report.load, traffic=report.traffic))
            return
        middle = len(report.traffic) // 2
        gauges = tuple(replace(part, arrived_tokens=0) for part in report.demand)
        yield from self._frames_of(replace(report, traffic=report.traffic[:middle], refused=(), demand=gauges))
        yield from self._frames_of(replace(report, traffic=report.traffic[middle:]))

    def info(self) -> dict[str, Any]:
        """Whether one waits, and counters."""
        return {"waiting": self._waiting is not None, "merged": self._merged, "frames": self._frames}
