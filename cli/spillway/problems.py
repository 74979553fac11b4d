"""Something wrong in a file, as `spillway validate` says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Problem:
    """Where and what; `line` counts from 1, `path` may be empty, a warning stops nothing."""

    file: str
    line: int
    path: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        return (
            f"{self.file}:{self.line}: {'warning: ' if self.warning else ''}{f'{self.path}: ' if self.path else ''}{self.message}"
        )


def problem_of(item: Mapping[str, Any]) -> Problem:
    """A problem as the operator's API gives it."""
    return Problem(
        str(item.get("file", "")),
        int(item.get("line") or 1),
        str(item.get("path") or ""),
        str(item.get("message", "")),
        bool(item.get("warning")),
    )
