"""A log file that does not grow for ever: when it is full it becomes `NAME.1`, and the older one goes."""

from __future__ import annotations

from pathlib import Path

MAX_BYTES = 2 * 1024 * 1024
_TAIL_BYTES = 4096


class BoundedLog:
    """Takes a child's output; at most twice `max_bytes` on disk."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._max_bytes = max_bytes
        self._file = path.open("ab", buffering=0)
        self._size = self._file.tell()
        self._tail = b""

    def write(self, data: bytes) -> None:
        """Append output."""
        if self._size and self._size + len(data) > self._max_bytes:
            self._file.close()
            self.path.replace(self.path.with_name(self.path.name + ".1"))
            self._file = self.path.open("wb", buffering=0)
            self._size = 0
        self._file.write(data)
        self._size += len(data)
        self._tail = (self._tail + data)[-_TAIL_BYTES:]

    def last_line(self) -> str:
        """The last line that says something."""
        lines = [line.strip() for line in self._tail.decode(errors="replace").splitlines()]
        return next((line for line in reversed(lines) if line), "")

    def forget_tail(self) -> None:
        """What follows is another process's output."""
        self._tail = b""

    def close(self) -> None:
        """No more output."""
        self._file.close()
