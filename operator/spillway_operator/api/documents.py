"""Resource documents: text in, objects and problems out.

A file holds any number of YAML documents. Each becomes an object, or problems with file, line and path; one that is bad stops none of
its neighbours. A problem names its object where that can be told, so that whoever holds the object's last good version knows which
one to keep.

Documents of groups that are not ours get a warning and are passed over: a folder may hold the Deployment beside its backend.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from spillway_operator.api import positions
from spillway_operator.api.backend import ModelBackend
from spillway_operator.api.checker import faults, without_empty
from spillway_operator.api.messages import closest
from spillway_operator.api.meta import API_VERSION, DEFAULT_NAMESPACE, GROUP, ObjectKey
from spillway_operator.api.route import ModelRoute
from spillway_operator.api.rules import Location, render
from spillway_operator.api.schema import KINDS

MAX_FILE_BYTES: Final = 1024 * 1024
SETTINGS_FILE: Final = "spillway.yaml"
SUFFIXES: Final = (".yaml", ".yml")

_LISTS: Final = ("List", *(f"{kind}List" for kind in KINDS))
_KIND_LINE: Final = re.compile(r"^kind:[ \t]*[\"']?([A-Za-z]+)", re.MULTILINE)
_METADATA: Final = re.compile(r"^metadata:(.*(?:\n[ \t]+.*|\n[ \t]*(?=\n))*)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong, where, and what to do.

    `path` is empty where a whole document or file is meant, `file` where the document comes from no file; a warning stops nothing.
    """

    file: str
    line: int
    path: str
    message: str
    object: ObjectKey | None = None
    warning: bool = False

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}: " if self.file else ""
        return f"{place}{'warning: ' if self.warning else ''}{f'{self.path}: ' if self.path else ''}{self.message}"

    def info(self) -> dict[str, Any]:
        """The problem as JSON data."""
        return {
            "file": self.file,
            "line": self.line,
            "path": self.path,
            "message": self.message,
            "object": str(self.object) if self.object else "",
            "warning": self.warning,
        }


@dataclass(frozen=True, slots=True)
class LoadedObject:
    """A good document: the object, and where it is written."""

    model: ModelBackend | ModelRoute
    file: str
    line: int
    document: positions.Document = field(repr=False, compare=False)

    @property
    def key(self) -> ObjectKey:
        """Its address."""
        return self.model.key

    @property
    def kind(self) -> str:
        """E.g. `ModelRoute`."""
        return self.model.kind

    @property
    def namespace(self) -> str:
        """Its namespace, filled in where the document has none."""
        return self.model.metadata.namespace

    @property
    def name(self) -> str:
        """Its name in the namespace."""
        return self.model.metadata.name

    def problem(self, location: Location, message: str, *, warning: bool = False) -> Problem:
        """A problem of this object that shows only beside others."""
        return Problem(self.file, self.document.line_of(location), render(location), message, self.key, warning)


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What came of a text, or of several: objects and problems, each in the order in which they stand there."""

    objects: tuple[LoadedObject, ...] = ()
    problems: tuple[Problem, ...] = ()

    @property
    def errors(self) -> tuple[Problem, ...]:
        """Problems that are no warnings."""
        return tuple(problem for problem in self.problems if not problem.warning)


def load_text(text: str | bytes, file: str) -> LoadResult:
    """Objects and problems of one file's text; `file` is its name in them. Never raises for what the text holds."""
    if len(text) > MAX_FILE_BYTES:
        return LoadResult(problems=(Problem(file, 1, "", f"the file is larger than {MAX_FILE_BYTES // 1024} KiB: split it up"),))
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError as error:
            line = error.object.count(b"\n", 0, error.start) + 1
            return LoadResult(problems=(Problem(file, line, "", "the text is not UTF-8: save the file in that encoding"),))
    objects: list[LoadedObject] = []
    problems: list[Problem] = []
    for document in positions.documents(text):
        for part in _parts(document):
            loaded = _load(part, file)
            if isinstance(loaded, LoadedObject):
                objects.append(loaded)
            else:
                problems.extend(loaded)
    return _apart(objects, problems)


def load_texts(texts: Mapping[str, str | bytes]) -> LoadResult:
    """Objects and problems of several files by name, in the order of their names; an object declared twice counts once."""
    return merge(load_text(texts[file], file) for file in sorted(texts))


def merge(results: Iterable[LoadResult]) -> LoadResult:
    """Several results as one. Of an object that stands in several the first counts, the others are problems."""
    objects: list[LoadedObject] = []
    problems: list[Problem] = []
    for result in results:
        objects.extend(result.objects)
        problems.extend(result.problems)
    return _apart(objects, problems)


def resource_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Files that hold resources: those named, and those in folders named, at any depth.

    In folders: `*.yaml` and `*.yml` without hidden files and folders, and without `spillway.yaml`, which holds settings.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                if name.endswith(SUFFIXES) and not name.startswith(".") and name != SETTINGS_FILE:
                    yield Path(folder, name)


def load_paths(paths: Iterable[Path]) -> LoadResult:
    """Objects and problems of files and folders. A file that cannot be read is a problem like any other."""
    results = []
    for path in dict.fromkeys(resource_files(paths)):
        try:
            results.append(load_text(path.read_bytes(), str(path)))
        except OSError as error:
            reason = (error.strerror or "unknown reason").lower()
            results.append(LoadResult(problems=(Problem(str(path), 1, "", f"the file cannot be read: {reason}"),)))
    return merge(results)


def _apart(objects: list[LoadedObject], problems: list[Problem]) -> LoadResult:
    first: dict[ObjectKey, LoadedObject] = {}
    for each in objects:
        if (earlier := first.setdefault(each.key, each)) is not each:
            where = f"{earlier.file}:{earlier.line}"
            problems.append(each.problem(("metadata", "name"), f"{each.key} is declared in {where} already: remove or rename one"))
    return LoadResult(tuple(first.values()), tuple(problems))


def _parts(document: positions.Document) -> Iterator[positions.Document]:
    """The entries of a list of objects, which is what `kubectl get -o yaml` prints; any other document as it is."""
    data = document.data
    listed = isinstance(data, dict) and data.get("kind") in _LISTS and data.get("apiVersion") in ("v1", API_VERSION)
    if listed and isinstance(data.get("items"), list):
        yield from (document.part(("items", index), item) for index, item in enumerate(data["items"]))
    else:
        yield document


def _load(document: positions.Document, file: str) -> LoadedObject | list[Problem]:
    data = document.data
    key = _key_of(data) if isinstance(data, dict) else _key_in(document.text)
    problems = [Problem(file, flaw.line, render(flaw.location), flaw.message, key) for flaw in document.flaws]
    if data is None:
        return problems
    if not isinstance(data, dict):
        message = f"a document is a mapping that begins with apiVersion: {API_VERSION} and kind: {' or '.join(KINDS)}"
        return [*problems, Problem(file, document.line_of(()), "", message)]
    if misfit := _misfit(document, data, file):
        return [*problems, *misfit]
    kind = data["kind"]
    data = without_empty(kind, data)
    problems.extend(
        Problem(file, document.line_of(fault.written), render(fault.location), fault.message, key) for fault in faults(kind, data)
    )
    if problems:
        return sorted(problems, key=lambda problem: (problem.line, problem.path, problem.message))
    try:
        model = KINDS[kind].model.model_validate({name: value for name, value in data.items() if name != "status"})
    except ValidationError as error:
        # The schema passed it and the model does not: a defect of ours, which a test looks for; the document is refused all the same.
        return [
            Problem(file, document.line_of(tuple(each["loc"])), render(tuple(each["loc"])), each["msg"], key)
            for each in error.errors()
        ]
    assert isinstance(model, ModelBackend | ModelRoute)  # noqa: S101 - the kinds that there are
    return LoadedObject(model, file, document.line_of(()), document)


def _misfit(document: positions.Document, data: dict[str, Any], file: str) -> list[Problem]:
    """Why a document is not one of ours; empty where it is."""
    version, kind = data.get("apiVersion"), data.get("kind")
    key = _key_of(data)

    def problem(field: str, message: str) -> Problem:
        return Problem(file, document.line_of((field,)), field, message, key)

    if isinstance(version, str) and isinstance(kind, str) and kind not in KINDS and not closest(version.partition("/")[0], [GROUP]):
        foreign = f"{kind} ({version}) is none of Spillway's kinds and is passed over"
        return [Problem(file, document.line_of(("kind",)), "", foreign, key, warning=True)]
    found = []
    if not isinstance(version, str) or version != API_VERSION:
        found.append(problem("apiVersion", f"{_said(version)}: write apiVersion: {API_VERSION}"))
    if not isinstance(kind, str) or kind not in KINDS:
        found.append(problem("kind", f"{_said(kind)}: write kind: {' or '.join(KINDS)}"))
    return found


def _said(value: object) -> str:
    return "missing" if value is None else f'"{str(value)[:60]}" is not known'


def _key_of(data: dict[str, Any]) -> ObjectKey | None:
    metadata = data.get("metadata")
    kind = data.get("kind")
    if not isinstance(metadata, dict) or not isinstance(kind, str):
        return None
    name, namespace = metadata.get("name"), metadata.get("namespace") or DEFAULT_NAMESPACE
    return ObjectKey(kind, str(namespace), name) if isinstance(name, str) else None


def _key_in(text: str) -> ObjectKey | None:
    """The object that a text with a syntax error most likely declares: read off its lines."""
    kind, metadata = _KIND_LINE.search(text), _METADATA.search(text)
    if kind is None or metadata is None:
        return None
    name = _field(metadata[1], "name")
    return ObjectKey(kind[1], _field(metadata[1], "namespace") or DEFAULT_NAMESPACE, name) if name else None


def _field(block: str, name: str) -> str:
    found = re.search(rf"(?:^|[\s{{,]){name}:[ \t]*[\"']?([a-z0-9.-]+)", block)
    return found[1] if found else ""
