"""The resources as last seen, by key, and what is wrong with the documents they come from.

An entry holds the last good version of an object and, beside it, the problems of its latest document if that one is bad: a
typo takes nothing away. An object that never had a good version is there all the same, with its kind and name, so that
its author finds it. Problems that belong to no object (a file that is no YAML) are kept by their origin.

Sources write (`put`, `remove`, `set_endpoints`, `set_problems`); the reconciler watches keys and reads; the status sink of
the standalone mode writes statuses, which are kept apart from what users declare.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from spillway_operator.api import API_VERSION, BackendStatus, ModelBackend, ModelRoute, ObjectKey, RouteStatus
from spillway_operator.api.documents import Problem
from spillway_wire.snapshot import Endpoint

BACKEND = "ModelBackend"
ROUTE = "ModelRoute"
ENDPOINTS = "Endpoints"  # kind of the key that stands for the endpoints of one backend

Object = ModelBackend | ModelRoute
Status = BackendStatus | RouteStatus
Age = tuple[
    str, str, int
]  # creation (RFC 3339, sorts by time) where it outlives a restart, origin, line: the oldest is the smallest


@dataclass(frozen=True, slots=True)
class Entry:
    """One object. `object` is its last good version (None: there never was one); `problems` are those of the latest document."""

    key: ObjectKey
    object: Object | None
    age: Age = ("", "", 0)
    origin: str = ""  # where the latest document stands, for people
    problems: tuple[Problem, ...] = ()

    @property
    def generation(self) -> int:
        """That of the last good version."""
        return 0 if self.object is None else self.object.metadata.generation


class Store:
    """Entries, endpoints, problems and statuses. One event loop; watchers are called with the key that changed."""

    def __init__(self) -> None:
        self._entries: dict[ObjectKey, Entry] = {}
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._loose_problems: dict[str, tuple[Problem, ...]] = {}
        self._statuses: dict[ObjectKey, Status] = {}
        self._watchers: list[Callable[[ObjectKey], None]] = []

    def watch(self, watcher: Callable[[ObjectKey], None]) -> None:
        """Be told of every key whose entry or endpoints changed."""
        self._watchers.append(watcher)

    def _changed(self, key: ObjectKey) -> None:
        for watcher in self._watchers:
            watcher(key)

    # -- objects

    def put(self, entry: Entry) -> bool:
        """Keep an entry; False where it says nothing that was not known."""
        if self._entries.get(entry.key) == entry:
            return False
        self._entries[entry.key] = entry
        self._changed(entry.key)
        return True

    def remove(self, key: ObjectKey) -> bool:
        """Forget an object and its status; False if it was not there."""
        if self._entries.pop(key, None) is None:
            return False
        self._statuses.pop(key, None)
        self._changed(key)
        return True

    def get(self, key: ObjectKey) -> Entry | None:
        """The entry, if there is one."""
        return self._entries.get(key)

    def entries(self, kind: str, namespace: str | None = None) -> Iterator[Entry]:
        """Entries of a kind, optionally of one namespace, as they came."""
        for key, entry in self._entries.items():
            if key.kind == kind and namespace in {None, key.namespace}:
                yield entry

    # -- endpoints

    def set_endpoints(self, endpoints: Mapping[str, Iterable[Endpoint]]) -> None:
        """Replace all endpoints, by backend (`namespace/name`)."""
        after = {name: tuple(listed) for name, listed in endpoints.items()}
        before = self._endpoints
        self._endpoints = after
        for name in sorted(before.keys() | after.keys()):
            if before.get(name) != after.get(name):
                namespace, _, backend = name.partition("/")
                self._changed(ObjectKey(ENDPOINTS, namespace, backend))

    def endpoints(self, name: str) -> tuple[Endpoint, ...]:
        """The endpoints of a backend (`namespace/name`) as the source sees them."""
        return self._endpoints.get(name, ())

    # -- problems

    def set_problems(self, origin: str, problems: Iterable[Problem]) -> None:
        """Replace the problems of an origin (a file) that belong to no object."""
        listed = tuple(problems)
        if listed:
            self._loose_problems[origin] = listed
        else:
            self._loose_problems.pop(origin, None)

    def problems(self) -> tuple[Problem, ...]:
        """All problems, of objects and loose ones, by file and line."""
        found = [problem for problems in self._loose_problems.values() for problem in problems]
        found.extend(problem for entry in self._entries.values() for problem in entry.problems)
        return tuple(sorted(found, key=lambda problem: (problem.file, problem.line, problem.path, problem.message)))

    # -- statuses

    def set_status(self, key: ObjectKey, status: Status | None) -> None:
        """Keep a status, or that there is none; that of an object which is gone is dropped."""
        if status is None:
            self._statuses.pop(key, None)
        elif key in self._entries:
            self._statuses[key] = status

    def status(self, key: ObjectKey) -> Status | None:
        """The status last written."""
        return self._statuses.get(key)

    def documents(self, kind: str, namespace: str | None = None) -> list[dict[str, Any]]:
        """The objects of a kind with their status, as plain JSON data, by namespace and name."""
        found = sorted(self.entries(kind, namespace), key=lambda entry: entry.key)
        return [self._document(entry) for entry in found]

    def _document(self, entry: Entry) -> dict[str, Any]:
        status = self._statuses.get(entry.key)
        if entry.object is not None:
            document = entry.object.to_document()
        else:
            document = {
                "apiVersion": API_VERSION,
                "kind": entry.key.kind,
                "metadata": {"name": entry.key.name, "namespace": entry.key.namespace},
            }
        if status is not None:
            document["status"] = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        return document

    def info(self) -> dict[str, Any]:
        """Counts by kind."""
        return {
            "backends": sum(1 for _ in self.entries(BACKEND)),
            "routes": sum(1 for _ in self.entries(ROUTE)),
            "backends_with_endpoints": len(self._endpoints),
            "endpoints": sum(len(listed) for listed in self._endpoints.values()),
            "problems": len(self.problems()),
            "statuses": len(self._statuses),
        }
