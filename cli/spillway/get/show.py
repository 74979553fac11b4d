"""Reads objects from the operator's admin page and prints them, once or as they change."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import yaml

from spillway import cluster
from spillway.admin import AdminError, get_json
from spillway.get.tables import Item, cells, line_of, namespace_of, table, widths_of
from spillway.problems import problem_of

PATHS = {"ModelRoute": "/api/v1/modelroutes", "ModelBackend": "/api/v1/modelbackends"}
PLURALS = {"ModelRoute": "routes", "ModelBackend": "backends"}
WATCH_SECONDS = 1.0


def show(args: argparse.Namespace) -> int:
    """Print what was asked for; the exit code."""
    try:
        every = _read(args)
        problems = [] if cluster.asked_for(args) else get_json(args.admin, "/api/v1/problems")["items"]
    except AdminError as error:
        print(f"spillway get: {error}", file=sys.stderr)
        return 1
    items = _selected(args, every)
    if args.name and not items:
        where = f" in namespace {args.namespace}" if args.namespace else ""
        there = ", ".join(sorted({str(item["metadata"]["name"]) for item in every})) or "none"
        print(
            f"spillway get: no {args.kind} is named {args.name}{where}; there {'is' if there == 'none' else 'are'} {there}",
            file=sys.stderr,
        )
        return 1
    _print(args, items)
    for problem in problems:
        print(problem_of(problem), file=sys.stderr)
    return _watch(args, items) if args.watch else 0


def _read(args: argparse.Namespace) -> Sequence[Item]:
    """Every object of the kind, from the operator's admin page or from a cluster. Raises `AdminError`."""
    if cluster.asked_for(args):
        return cluster.objects(args, args.kind)
    items: Sequence[Item] = get_json(args.admin, PATHS[args.kind])["items"]
    return items


def _selected(args: argparse.Namespace, items: Sequence[Item]) -> list[Item]:
    return [
        item
        for item in items
        if (args.namespace is None or namespace_of(item) == args.namespace) and args.name in (None, item["metadata"]["name"])
    ]


def _print(args: argparse.Namespace, items: Sequence[Item]) -> None:
    if args.output in {"json", "yaml"}:
        shown: Mapping[str, Any] = items[0] if args.name else {"apiVersion": "v1", "kind": "List", "items": list(items)}
        print(_document(args.output, shown), flush=True)
    elif not items:
        print(f"No {PLURALS[args.kind]} found.", file=sys.stderr)
    else:
        for line in table(cells(args.kind, items, now=datetime.now(UTC), wide=args.output == "wide")):
            print(line, flush=True)


def _document(form: str, shown: Mapping[str, Any]) -> str:
    if form == "json":
        return json.dumps(shown, indent=2, ensure_ascii=False)
    text: str = yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    return text.rstrip("\n")


def _watch(args: argparse.Namespace, items: Sequence[Item]) -> int:
    """Print a row, or a document, for each object that changes; a row's age is no change."""
    wide = args.output == "wide"

    def state(item: Item) -> object:
        if args.output in {"json", "yaml"}:
            return item
        return cells(args.kind, [item], now=datetime.now(UTC), wide=wide)[1][:-1]

    def key(item: Item) -> tuple[str, str]:
        return namespace_of(item), str(item["metadata"]["name"])

    seen = {key(item): state(item) for item in items}
    widths = widths_of(cells(args.kind, items, now=datetime.now(UTC), wide=wide)) if items else []
    report = _Once(lambda text: print(f"spillway get: {text}", file=sys.stderr, flush=True))
    while True:
        time.sleep(WATCH_SECONDS)
        try:
            items = _selected(args, _read(args))
        except AdminError as error:
            report(str(error))
            continue
        report.clear()
        changed = [item for item in items if seen.get(key(item)) != state(item)]
        seen = {key(item): state(item) for item in items}
        for item in changed:
            if args.output in {"json", "yaml"}:
                print(("---\n" if args.output == "yaml" else "") + _document(args.output, item), flush=True)
                continue
            rows = cells(args.kind, [item], now=datetime.now(UTC), wide=wide)
            if not widths:
                widths = widths_of(rows)
                print(line_of(rows[0], widths))
            widths = widths_of([rows[1]], widths)
            print(line_of(rows[1], widths), flush=True)


class _Once:
    """Says a thing once until it is cleared."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._last: str | None = None

    def __call__(self, text: str) -> None:
        if text != self._last:
            self._last = text
            self._say(text)

    def clear(self) -> None:
        self._last = None
