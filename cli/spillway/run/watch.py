"""What a run looks at: its standalone files, and the operator's admin page.

Files are compared by a signature of their state, several times a second.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spillway.admin import fetch
from spillway.problems import Problem, problem_of
from spillway.run.standalone import FILE_NAME, Standalone, merge, parse

Signature = tuple[int, int, int] | None


class StandaloneFiles:
    """The `spillway.yaml` of each path, as last read."""

    def __init__(self, paths: Iterable[str]) -> None:
        self._files = [path / FILE_NAME if path.is_dir() else path for path in map(Path, paths)]
        self._files = [path for path in self._files if path.name == FILE_NAME]
        self._good: dict[Path, Standalone] = {}
        self._seen: dict[Path, Signature] | None = None
        self.problems: list[Problem] = []

    def read_if_changed(self) -> Standalone | None:
        """All files as one if any of them changed since the last call (or this is the first), else None."""
        seen = {path: _signature(path) for path in self._files}
        if seen == self._seen:
            return None
        self._seen = seen
        self.problems = []
        for path in self._files:
            if seen[path] is None:
                self._good.pop(path, None)
                continue
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                self.problems.append(Problem(str(path), 1, "", f"cannot be read: {error}"))
                continue
            self._good[path], problems = parse(text, str(path), self._good.get(path, Standalone()))
            self.problems += problems
        return merge(self._good[path] for path in self._files if path in self._good)


class ScaleFile:
    """How many engines the operator asks for, by backend."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Signature = None
        self.replicas: Mapping[str, int] = {}
        path.unlink(missing_ok=True)  # of an earlier run

    def read_if_changed(self) -> bool:
        """Look; whether it says something else than before."""
        seen = _signature(self._path)
        if seen == self._seen or seen is None:
            return False
        try:
            asked = json.loads(self._path.read_bytes())["replicas"]
        except (OSError, ValueError, KeyError):
            return False  # the next look will do
        self._seen = seen
        before, self.replicas = self.replicas, dict(asked)
        return self.replicas != before


@dataclass(frozen=True, slots=True)
class View:
    """What the operator's admin page shows."""

    routes: list[Mapping[str, Any]] = field(default_factory=list)
    backends: list[Mapping[str, Any]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


async def look(operator_url: str) -> View | None:
    """The view at this moment, or None if the operator does not answer."""
    paths = ("/api/v1/modelroutes", "/api/v1/modelbackends", "/api/v1/problems")
    try:
        answers = await asyncio.gather(*(fetch(operator_url, path, timeout_seconds=2.0) for path in paths))
        if any(status != 200 for status, _ in answers):
            return None
        routes, backends, problems = (json.loads(body)["items"] for _, body in answers)
    except (OSError, ValueError, KeyError):
        return None
    return View(routes, backends, [problem_of(item) for item in problems])


async def is_ready(url: str) -> bool:
    """Whether `/readyz` of an admin address answers 200."""
    try:
        status, _ = await fetch(url, "/readyz", timeout_seconds=2.0)
    except OSError:
        return False
    return status == 200


def _signature(path: Path) -> Signature:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
