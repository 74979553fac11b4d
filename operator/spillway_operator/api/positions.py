"""YAML text as plain data that knows the line of each of its parts.

A file is cut at its `---` and `...` lines before anything is parsed: such a line is a document's end wherever it stands, also within
quotes, so that a syntax error in one document leaves its neighbours whole. Each document is built from parser events, without
recursion, under limits on depth and on the number of nodes *after* aliases are expanded, which is what an alias bomb runs into.

The data is what the API server would see: JSON. Dates stay text, `5.0` is 5, infinity and objects are refused, a key is text, and
given once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.resolver import Resolver

from spillway_operator.api.messages import syntax
from spillway_operator.api.rules import Location
from spillway_operator.api.scalars import convert, described

MAX_DEPTH: Final = 64
MAX_NODES: Final = 100_000

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER: Final[Any] = Resolver()
_SEPARATOR: Final = re.compile(r"^(?:---|\.\.\.)(?=[ \t\r\n]|\Z)", re.MULTILINE)
_BLANK: Final = re.compile(r"\A(?:[ \t]*(?:[#%].*)?\r?(?:\n|\Z))*\Z")
_TAG: Final = "tag:yaml.org,2002:"
_COLLECTION_TAGS: Final = frozenset({None, "!", f"{_TAG}map", f"{_TAG}seq"})
_SCALARS: Final = frozenset({"null", "bool", "int", "float", "str", "timestamp", "merge", "value"})


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something that is wrong with the text itself."""

    line: int
    message: str
    location: Location = ()


@dataclass(slots=True)
class Document:
    """One document: its data (None: it could not be read), the lines of its parts, and its flaws."""

    line: int
    text: str
    data: Any = None
    flaws: list[Flaw] = field(default_factory=list)
    key_lines: dict[Location, int] = field(default_factory=dict)
    value_lines: dict[Location, int] = field(default_factory=dict)

    def line_of(self, location: Location) -> int:
        """Line of the nearest part that there is: the value's where it stands alone, the key's where it opens a block."""
        while True:
            line = self.key_lines.get(location) or self.value_lines.get(location)
            if line is not None:
                return line
            if not location:
                return self.line
            location = location[:-1]

    def part(self, location: Location, data: Any) -> Document:
        """A part of the document as a document of its own; `data` is what stands there."""
        depth = len(location)
        return Document(
            self.line_of(location),
            self.text,
            data,
            [Flaw(flaw.line, flaw.message, flaw.location[depth:]) for flaw in self.flaws if flaw.location[:depth] == location],
            {at[depth:]: line for at, line in self.key_lines.items() if at[:depth] == location},
            {at[depth:]: line for at, line in self.value_lines.items() if at[:depth] == location},
        )


class _Stop(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


@dataclass(slots=True)
class _Value:
    """A finished node: data, its line, and how many nodes it has when written out."""

    data: Any
    line: int
    nodes: int = 1
    scalar: bool = False
    merge: bool = False
    text: str = ""


@dataclass(slots=True)
class _Open:
    """A mapping or list that is being read."""

    location: Location
    line: int
    anchor: str | None
    entries: Any
    nodes: int = 1
    key: _Value | None = None
    merged: list[Any] = field(default_factory=list)


def documents(text: str) -> Iterator[Document]:
    """Documents of a file in order. Empty ones and those that hold comments only are left out."""
    text = text.removeprefix("\ufeff")
    starts = [0, *(match.start() for match in _SEPARATOR.finditer(text))]
    line = 1
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        chunk = text[start:end]
        body = _SEPARATOR.sub("   ", chunk, count=1)
        if not _BLANK.match(body):
            document = _read(body, line)
            if document.data is not None or document.flaws:
                yield document
        line += chunk.count("\n")


def _read(text: str, first_line: int) -> Document:
    """The document of a text without separators."""
    offset = len(text) - len(text.lstrip())
    document = Document(first_line + text.count("\n", 0, offset), text)
    last_line = first_line + text.rstrip().count("\n")
    try:
        builder = _Builder(document, first_line)
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except _Stop as stop:
        document.data = None
        document.flaws.append(Flaw(stop.line, stop.message))
    except yaml.MarkedYAMLError as error:
        document.data = None
        document.flaws.append(Flaw(min(_line(_where(error), first_line), last_line), syntax(error, text)))
    except yaml.reader.ReaderError as error:
        document.data = None
        before = text.encode()[: error.position]
        document.flaws.append(Flaw(first_line + before.count(b"\n"), "a control character stands in the text: remove it"))
    return document


def _where(error: yaml.MarkedYAMLError) -> Any:
    """What is not closed is wrong where it was opened; the parser notices at the end of the text."""
    opened = any(word in (error.context or "") for word in ("flow", "quoted"))
    return error.context_mark if opened else error.problem_mark or error.context_mark


def _line(mark: Any, first_line: int) -> int:
    return first_line + (mark.line if mark else 0)


class _Builder:
    """Turns a document's events into data, lines and flaws."""

    def __init__(self, document: Document, first_line: int) -> None:
        self._document = document
        self._first_line = first_line
        self._stack: list[_Open] = []
        self._anchors: dict[str, _Value] = {}
        self._nodes = 0

    def take(self, event: yaml.Event) -> None:
        """One event of the document."""
        line = _line(event.start_mark, self._first_line)
        if isinstance(event, yaml.ScalarEvent):
            value = _scalar(event, line)
            if event.anchor:
                self._anchors[event.anchor] = value
            self._add(value)
        elif isinstance(event, yaml.AliasEvent):
            known = self._anchors.get(event.anchor or "")
            if known is None:
                raise _Stop(
                    line, f"the alias *{event.anchor} stands for nothing: put &{event.anchor} before the value it is to repeat"
                )
            self._add(_Value(known.data, line, known.nodes, known.scalar))
        elif isinstance(event, yaml.MappingStartEvent | yaml.SequenceStartEvent):
            self._open(event, line)
        elif isinstance(event, yaml.MappingEndEvent | yaml.SequenceEndEvent):
            self._close()

    def _open(self, event: yaml.MappingStartEvent | yaml.SequenceStartEvent, line: int) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise _Stop(line, f"the document is nested more than {MAX_DEPTH} levels deep")
        if event.tag not in _COLLECTION_TAGS:
            raise _Stop(line, f"the tag {event.tag} means nothing here: remove it")
        if self._stack and isinstance(self._stack[-1].entries, dict) and self._stack[-1].key is None:
            raise _Stop(line, "a key is a word, not a mapping or list: quote it if it begins with { or [")
        entries: Any = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._stack.append(_Open(self._next_location(), line, event.anchor, entries))

    def _close(self) -> None:
        closed = self._stack.pop()
        if isinstance(closed.entries, dict):
            for source in closed.merged:
                for key, value in source.items():
                    closed.entries.setdefault(key, value)
        value = _Value(closed.entries, closed.line, closed.nodes)
        if closed.anchor:
            self._anchors[closed.anchor] = value
        self._add(value)

    def _next_location(self) -> Location:
        if not self._stack:
            return ()
        parent = self._stack[-1]
        if isinstance(parent.entries, dict):
            assert parent.key is not None  # noqa: S101 - a key was read, or `_open` has refused
            return (*parent.location, str(parent.key.data))
        return (*parent.location, len(parent.entries))

    def _add(self, value: _Value) -> None:
        """Put a finished node where it belongs: the document, a list, or a mapping's key or value."""
        if not self._stack:
            self._document.data = value.data
            self._document.value_lines[()] = value.line
            return
        parent = self._stack[-1]
        parent.nodes += value.nodes
        if parent.nodes > MAX_NODES:
            raise _Stop(value.line, f"the document has more than {MAX_NODES} parts, counting what aliases repeat: split it up")
        if isinstance(parent.entries, list):
            self._document.value_lines[*parent.location, len(parent.entries)] = value.line
            parent.entries.append(value.data)
        elif parent.key is None:
            if not value.scalar:
                raise _Stop(value.line, "a key is a word, not a mapping or list")
            parent.key = value
        else:
            self._entry(parent, parent.key, value)
            parent.key = None

    def _entry(self, parent: _Open, key: _Value, value: _Value) -> None:
        if key.merge:
            sources = value.data if isinstance(value.data, list) else [value.data]
            if not all(isinstance(source, dict) for source in sources):
                raise _Stop(value.line, "<< takes a mapping, or a list of mappings, e.g. <<: *common")
            parent.merged.extend(sources)
            return
        if not isinstance(key.data, str):
            at = (*parent.location, key.text)
            self._document.flaws.append(
                Flaw(key.line, f"a key is text, and YAML reads this one as {described(key.data)}: put it in quotes", at)
            )
            return
        location = (*parent.location, key.data)
        if key.data in parent.entries:
            first = self._document.key_lines[location]
            self._document.flaws.append(Flaw(key.line, f"given twice (first in line {first}): remove one", location))
            return
        self._document.key_lines[location] = value.line if value.scalar else key.line
        parent.entries[key.data] = value.data


def _scalar(event: yaml.ScalarEvent, line: int) -> _Value:
    """A scalar's value as JSON would have it."""
    text = event.value
    tag = event.tag
    if tag is None or tag == "!":
        tag = _RESOLVER.resolve(yaml.ScalarNode, text, event.implicit)
    name = tag.removeprefix(_TAG)
    if name not in _SCALARS:
        raise _Stop(line, f"the tag {tag} means nothing here: remove it")
    if name == "merge":
        return _Value(text, line, scalar=True, merge=True)
    try:
        return _Value(convert(name, text), line, scalar=True, text=text)
    except ValueError:
        raise _Stop(line, f"{text[:60]!r} is no number that can be used: give a finite one, or put text in quotes") from None
