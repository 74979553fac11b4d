"""What a run shows of itself: on a terminal a table that stays in place below the messages, elsewhere a line a change.

`frame` and `states` are pure. `Screen` owns the terminal: messages scroll by above the table, which is erased and drawn again
in place with three plain control sequences.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TextIO

from spillway.get.tables import Item, cells, namespace_of, table
from spillway.problems import Problem
from spillway.run.watch import View
from spillway_operator.api.columns import evaluate

_BOLD, _RED, _DIM, _PLAIN = "\x1b[1m", "\x1b[31m", "\x1b[2m", "\x1b[0m"


def frame(view: View | None, problems: Sequence[Problem], footer: str, *, now: datetime, columns: int, rows: int) -> list[str]:
    """The table's lines, cut to the terminal's size."""
    lines = [""]
    if view is None:
        lines.append(f"{_DIM}the operator does not answer; traffic goes on as it last said{_PLAIN}")
    else:
        for kind, items, none in (
            ("ModelRoute", view.routes, "no routes: no good ModelRoute was found in the given paths"),
            ("ModelBackend", view.backends, "no backends: no good ModelBackend was found in the given paths"),
        ):
            if not items:
                lines += [f"{_DIM}{none}{_PLAIN}", ""]
                continue
            head, *body = (line[:columns] for line in _fitting(kind, items, now, columns))
            lines += [f"{_BOLD}{head}{_PLAIN}", *body, ""]
    lines += [f"{_RED}{str(problem)[:columns]}{_PLAIN}" for problem in problems]
    if problems:
        lines.append("")
    room = max(3, rows - 2)
    if len(lines) > room:
        lines = [*lines[: room - 1], f"{_DIM}({len(lines) - room + 1} lines more; spillway get shows all){_PLAIN}"]
    return [*lines, f"{_DIM}{footer[:columns]}{_PLAIN}"]


def _fitting(kind: str, items: Sequence[Item], now: datetime, columns: int) -> list[str]:
    """The wide table if the terminal has room for it, else the usual one."""
    wide = table(cells(kind, items, now=now, wide=True))
    return wide if max(map(len, wide)) <= columns else table(cells(kind, items, now=now))


def states(view: View) -> dict[str, str]:
    """Each object in a few words that change only when something happened to it."""
    said: dict[str, str] = {}
    for word, items in (("route", view.routes), ("backend", view.backends)):
        for item in items:
            said[f"{word} {_name(item)}"] = _state(word, item)
    return said


def _state(word: str, item: Item) -> str:
    ready = evaluate('.status.conditions[?(@.type=="Ready")]', item) or {}
    words = ["ready" if ready.get("status") == "True" else f"not ready ({ready.get('reason') or 'Pending'})"]
    summary = evaluate(".status.summary", item) or {}
    pairs = {"route": (("backends", "backends"), ("synced", "synced")), "backend": (("endpoints", "endpoints"),)}[word]
    words += [f"{label} {summary[field]}" for field, label in pairs if summary.get(field)]
    return ", ".join(words)


def _name(item: Item) -> str:
    namespace, name = namespace_of(item), str(item["metadata"]["name"])
    return name if namespace == "default" else f"{namespace}/{name}"


class Screen:
    """The terminal or file that a run writes to."""

    def __init__(self, out: TextIO, now: Callable[[], datetime], *, live: bool, quiet: bool) -> None:
        self._out, self._now = out, now
        self.live, self.quiet = live and not quiet, quiet
        self._drawn: list[str] = []
        self._states: Mapping[str, str] = {}

    def say(self, text: str) -> None:
        """A message, with the time of day."""
        self.line(f"{self._now().astimezone():%H:%M:%S} {text}")

    def line(self, text: str) -> None:
        """A line of its own, above the table."""
        self._out.write(self._erasure() + text + "\n" + "".join(line + "\n" for line in self._drawn))
        self._out.flush()

    def update(self, view: View | None, problems: Sequence[Problem], footer: str) -> None:
        """Show a view: the table again, or a line for each change."""
        if self.live:
            size = shutil.get_terminal_size()
            lines = frame(view, problems, footer, now=self._now(), columns=size.columns, rows=size.lines)
            erasure = self._erasure()
            self._drawn = lines
            self._out.write(erasure + "".join(line + "\n" for line in lines))
            self._out.flush()
        elif view is not None and not self.quiet:
            now_said = states(view)
            for name, state in now_said.items():
                if self._states.get(name) != state:
                    self.say(f"{name}: {state}")
            for name in self._states.keys() - now_said.keys():
                self.say(f"{name}: gone")
            self._states = now_said

    def end(self) -> None:
        """Leave the last table where it is; what follows goes below it."""
        self._drawn = []
        self.live = False

    def _erasure(self) -> str:
        """Back to the table's first line, and clear from there."""
        return f"\x1b[{len(self._drawn)}F\x1b[J" if self._drawn else ""
