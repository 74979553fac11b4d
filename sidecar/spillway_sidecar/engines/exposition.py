r"""Reads wanted samples out of Prometheus text exposition, which is an engine's and so untrusted.

An engine writes hundreds of kilobytes of histograms around the three gauges that matter here, so nothing is parsed but
the lines that begin with a wanted name: `bytes.find` of a line's start goes over the rest at memory speed. A wanted line
is then read strictly, `name{label="value",...} value [timestamp]`, with bounds on its length, its labels and the number
of samples, and in time linear in its length.

The answer for a name is the whole truth or none: one sample that is malformed, NaN, infinite or negative, or one bound
that is passed, makes the metric unknown (None). A sum over the rest would be a number that nobody reported, and a low
one draws traffic. No input raises.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

MAX_EXPOSITION_BYTES: Final = 4 * 1024 * 1024  # vLLM with many adapters stays under 1 MiB
MAX_LINE_BYTES: Final = 16 * 1024  # of a wanted line; others are never looked at
MAX_LABELS: Final = 64
MAX_SAMPLES: Final = 1024  # label sets of one name: data-parallel ranks, adapters, models
MAX_CANDIDATES: Final = 8 * MAX_SAMPLES  # lines that begin with the name, those of longer names included

_LABEL = re.compile(rb'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\\n]|\\.)*)"[ \t]*(,?)')
_CLOSE = re.compile(rb"[ \t]*\}")
_VALUE = re.compile(rb"[ \t]*([+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)(?:[ \t]+-?[0-9]+)?[ \t]*\r?")
_ESCAPE = re.compile(rb'\\([\\"n])')
_AFTER_NAME = b"{ \t"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: its labels and its value, which is finite and not negative."""

    labels: Mapping[str, str]
    value: float


def read_samples(exposition: bytes, name: str) -> tuple[Sample, ...] | None:
    """Every sample of the metric `name`, in order. Empty: the text has none. None: unreadable or out of bounds, so unknown."""
    if len(exposition) > MAX_EXPOSITION_BYTES:
        return None
    samples: list[Sample] = []
    for line in _lines(exposition, name.encode()):
        sample = None if line is None else _sample(line)
        if sample is None or len(samples) == MAX_SAMPLES:
            return None
        samples.append(sample)
    return tuple(samples)


def _lines(exposition: bytes, name: bytes) -> Iterator[bytes | None]:
    """What follows the name on each line that starts with it, without the line's end; None where a bound is passed."""
    start = 0 if exposition.startswith(name) else _next(exposition, name, 0)
    candidates = 0
    while start >= 0:
        candidates += 1
        if candidates > MAX_CANDIDATES:
            yield None
            return
        after = start + len(name)
        end = exposition.find(b"\n", after, start + MAX_LINE_BYTES + 1)
        if exposition[after : after + 1] and exposition[after] in _AFTER_NAME:
            if end < 0 and len(exposition) - start > MAX_LINE_BYTES:
                yield None
            else:
                yield exposition[after : end if end >= 0 else len(exposition)]
        start = _next(exposition, name, after)


def _next(exposition: bytes, name: bytes, position: int) -> int:
    found = exposition.find(b"\n" + name, position)
    return found if found < 0 else found + 1


def _sample(line: bytes) -> Sample | None:
    line = line.lstrip(b" \t")
    labels: dict[str, str] = {}
    position = 0
    if line.startswith(b"{"):
        closed = _labels(line, labels)
        if closed is None:
            return None
        position = closed
    value = _VALUE.fullmatch(line, position)
    if value is None:
        return None
    number = float(value[1])
    return Sample(labels, number) if math.isfinite(number) and number >= 0 else None


def _labels(line: bytes, labels: dict[str, str]) -> int | None:
    """Reads `{...}` into `labels`; the position after the brace, or None if it is malformed."""
    position = 1
    comma = True
    while (close := _CLOSE.match(line, position)) is None:
        label = _LABEL.match(line, position) if comma else None
        if label is None or len(labels) == MAX_LABELS:
            return None
        name = label[1].decode("ascii")
        if name in labels:
            return None
        labels[name] = _ESCAPE.sub(_unescape, label[2]).decode("utf-8", "replace")
        position, comma = label.end(), bool(label[3])
    return close.end()


def _unescape(escape: re.Match[bytes]) -> bytes:
    return b"\n" if escape[1] == b"n" else escape[1]
