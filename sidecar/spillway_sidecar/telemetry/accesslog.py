"""An access log: one JSON line a request, collected in memory and written by the sweep, off when no path is given.

Names and figures only: no header, no body, no key. When the disk cannot take lines they are dropped and counted.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

import msgspec

MAX_PENDING: Final = 10_000


class AccessLog:
    """Appends lines to a file descriptor that it opened. Not thread-safe; `flush` blocks for one write."""

    def __init__(self, path: str) -> None:
        self._fd = 1 if path == "-" else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640)
        self._pending: list[tuple[object, ...]] = []
        self._encode = msgspec.json.Encoder().encode
        self.dropped_total = 0

    def add(self, *values: object) -> None:
        """Takes one request in: time, id, model, route, rule, backend, endpoint, status, outcome, ttft, duration, attempts, tokens."""
        if len(self._pending) < MAX_PENDING:
            self._pending.append(values)
        else:
            self.dropped_total += 1

    def flush(self) -> None:
        """Writes what has come."""
        if not self._pending:
            return
        lines, self._pending = self._pending, []
        names = (
            "time",
            "requestId",
            "model",
            "route",
            "rule",
            "backend",
            "endpoint",
            "status",
            "outcome",
            "ttft",
            "duration",
            "attempts",
            "in",
            "out",
        )
        data = b"".join(self._encode(dict(zip(names, line, strict=False))) + b"\n" for line in lines)
        try:
            os.write(self._fd, data)
        except OSError:
            self.dropped_total += len(lines)

    def close(self) -> None:
        """Writes the rest and closes."""
        self.flush()
        if self._fd != 1:
            with contextlib.suppress(OSError):
                os.close(self._fd)
