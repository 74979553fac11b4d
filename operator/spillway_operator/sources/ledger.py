"""What documents say -> what the store holds: last good versions, generations, and patience with things that vanish.

The ledger is handed the outcome of loading every file (`update`) and brings the store in line. No file is read here.

- A good document becomes the object's version in force. Its generation is 1 when first seen, and one more with each change of the
  spec; labels and annotations change without it, as on an API server.
- A bad document keeps the last good version of its object and adds the problems. An object that never was good is entered with its
  problems alone, if its kind and name could be read. A file of which some part leaves open which object it is about (a broken
  line, a half-written file, a typo in a name) keeps every object that it declared before.
- What is gone is removed after `grace_seconds` of absence, not at once: editors replace a file by moving it away and writing
  another, or truncate it first, and a route must not blink for that.
- Age, which decides between routes that claim one model, is the place: path, then line. It is the only order among files that is
  the same after a restart. The creation timestamp that is shown is the moment at which this process first saw the object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from spillway_operator.api import ObjectKey
from spillway_operator.api.documents import LoadedObject, LoadResult, Problem, merge
from spillway_operator.store import BACKEND, ROUTE, Entry, Object, Store

PATIENCE_SECONDS: Final = 1.0  # for files that are being written; one that never rests holds up no deletion for longer


@dataclass(slots=True)
class _Known:
    """What the ledger remembers of an object beside its entry."""

    file: str  # where its last good, or only, document stands
    created: datetime
    generation: int = 0
    missing_since: float | None = None


class Ledger:
    """Entries of one store, by the documents of one source."""

    def __init__(self, store: Store, *, grace_seconds: float) -> None:
        self._store = store
        self._grace_seconds = grace_seconds
        self._known: dict[ObjectKey, _Known] = {}
        self._files: set[str] = set()

    def update(
        self, results: Mapping[str, LoadResult], now: float, moment: datetime, *, more_to_come: bool = False
    ) -> float | None:
        """Bring the store in line with the outcome of every file, in order of their names.

        `more_to_come`: some file has changed and is not read yet, and may hold what is missing. Returns the monotonic time at which to call again because something is missing and not yet given up; None if
        nothing is. `moment` is the wall clock, for creation timestamps.
        """
        merged = merge(results[file] for file in sorted(results))
        good = {loaded.key: loaded for loaded in merged.objects}
        bad, loose = _attribute(merged.problems, good)
        torn = {problem.file for problem in merged.errors if _hides_its_object(problem)}
        for key, loaded in good.items():
            known = self._known.get(key)
            if known is not None and any(problem.file == known.file != loaded.file for problem in bad.get(key, ())):
                continue  # the document in force is broken at present; another file's does not take its place for that
            for problem in bad.pop(key, ()):
                loose.setdefault(problem.file, []).append(problem)
            self._accept(loaded, moment)
        for key, problems in bad.items():
            self._keep(key, problems, moment)
        self._tell_loose(loose)
        return self._forget(good.keys() | bad.keys(), torn, now, PATIENCE_SECONDS if more_to_come else self._grace_seconds)

    def _accept(self, loaded: LoadedObject, moment: datetime) -> None:
        key = loaded.key
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(file=loaded.file, created=moment)
        known.file = loaded.file
        known.missing_since = None
        entry = self._store.get(key)
        before = entry.object if entry is not None else None
        if before is None or before.spec != loaded.model.spec:
            known.generation += 1
        self._store.put(
            Entry(
                key=key,
                object=_stamped(loaded.model, known),
                age=("", loaded.file, loaded.line),
                origin=f"{loaded.file}:{loaded.line}",
            )
        )

    def _keep(self, key: ObjectKey, problems: tuple[Problem, ...], moment: datetime) -> None:
        first = problems[0]
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(file=first.file, created=moment)
        known.missing_since = None
        entry = self._store.get(key)
        self._store.put(
            Entry(
                key=key,
                object=entry.object if entry is not None else None,
                age=entry.age if entry is not None else ("", first.file, first.line),
                origin=f"{first.file}:{first.line}",
                problems=problems,
            )
        )

    def _tell_loose(self, loose: Mapping[str, list[Problem]]) -> None:
        for file in self._files - loose.keys():
            self._store.set_problems(file, ())
        for file, problems in loose.items():
            self._store.set_problems(file, problems)
        self._files = set(loose)

    def _forget(self, present: Iterable[ObjectKey], torn: set[str], now: float, grace_seconds: float) -> float | None:
        again: float | None = None
        for key in self._known.keys() - set(present):
            known = self._known[key]
            if known.file in torn:
                known.missing_since = None
                continue
            if known.missing_since is None:
                known.missing_since = now
            due = known.missing_since + grace_seconds
            if due <= now:
                del self._known[key]
                self._store.remove(key)
            else:
                again = due if again is None else min(again, due)
        return again

    def info(self) -> dict[str, Any]:
        """Counts."""
        return {
            "objects": len(self._known),
            "missing": sorted(str(key) for key, known in self._known.items() if known.missing_since is not None),
            "files_with_problems": sorted(self._files),
        }


def _attribute(
    problems: Iterable[Problem], good: Mapping[ObjectKey, LoadedObject]
) -> tuple[dict[ObjectKey, tuple[Problem, ...]], dict[str, list[Problem]]]:
    """Problems by the object whose document they are about, and the others by file.

    Of an object with a good document, an error in the very file is a second document of that name: it is not in force and
    harms nobody, so it is told with the file.
    """
    of_objects: dict[ObjectKey, list[Problem]] = {}
    loose: dict[str, list[Problem]] = {}
    for problem in problems:
        key = problem.object
        mine = key is not None and key.kind in {BACKEND, ROUTE} and not problem.warning
        if key is not None and mine and not (key in good and good[key].file == problem.file):
            of_objects.setdefault(key, []).append(problem)
        else:
            loose.setdefault(problem.file, []).append(problem)
    return {key: tuple(listed) for key, listed in of_objects.items()}, loose


def _hides_its_object(problem: Problem) -> bool:
    """Whether the problem leaves open which object the document was about."""
    key = problem.object
    return key is None or key.kind not in {BACKEND, ROUTE} or problem.path in {"metadata", "metadata.name", "metadata.namespace"}


def _stamped(model: Object, known: _Known) -> Object:
    metadata = model.metadata.model_copy(update={"generation": known.generation, "creation_timestamp": known.created})
    return model.model_copy(update={"metadata": metadata})
