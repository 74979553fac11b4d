"""What has replicas without a cluster: two files between the operator and whoever runs the engines. Implements `scaling.ports.ScaleTargets`.

    {"replicas": {"default/fast": 2}}     what there is, written by the one who runs them, read here once a tick
    {"replicas": {"default/fast": 5}}     what there should be, written here

Both go by backend, since there is no object that a `targetRef` could name. A backend that the first file does not name has no target.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec

from spillway_operator.policies import reasons
from spillway_operator.scaling.ports import TargetRef, TargetState

_log = logging.getLogger(__name__)


class ReplicasDocument(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Either file."""

    replicas: dict[str, Annotated[int, msgspec.Meta(ge=0, le=100_000)]] = {}


_DECODER = msgspec.json.Decoder(ReplicasDocument)
_MISSING = "nothing here runs its replicas: with `spillway run`, name it under simulate in spillway.yaml"


class FileTargets:
    """Targets by two files. Without them nothing has replicas, and that is shown."""

    def __init__(self, there: Path | None = None, wanted: Path | None = None) -> None:
        self._there = there
        self._wanted_file = wanted
        self._backends: dict[TargetRef, str] = {}
        self._replicas: dict[str, int] = {}
        self._wanted: dict[str, int] = {}
        self._problem = ""

    def state(self, ref: TargetRef) -> TargetState | None:
        """What there is."""
        replicas = self._replicas.get(self._backends.get(ref, ""))
        if self._problem:
            return None
        return TargetState(problem=reasons.TARGET_NOT_FOUND, message=_MISSING) if replicas is None else TargetState(replicas)

    def scale(self, ref: TargetRef, replicas: int) -> None:
        """Write down what there should be."""
        backend = self._backends.get(ref)
        if backend is not None and self._wanted.get(backend) != replicas:
            self._wanted[backend] = replicas
            self._write()

    def retain(self, refs: Mapping[TargetRef, str]) -> None:
        """These count; the files are looked at."""
        self._backends = dict(refs)
        gone = self._wanted.keys() - set(refs.values())
        for backend in gone:
            del self._wanted[backend]
        if gone:
            self._write()
        self._read()

    def _read(self) -> None:
        if self._there is None:
            return
        try:
            self._replicas = _DECODER.decode(self._there.read_bytes()).replicas
        except (OSError, msgspec.MsgspecError) as error:
            if not self._problem:
                _log.warning("targets: %s cannot be read: %s", self._there, error)
            self._problem = str(error)
        else:
            self._problem = ""

    def _write(self) -> None:
        if self._wanted_file is None:
            return
        partial = self._wanted_file.with_name(self._wanted_file.name + ".tmp")
        try:
            partial.write_bytes(msgspec.json.encode(ReplicasDocument(self._wanted)))
            partial.replace(self._wanted_file)
        except OSError as error:
            _log.warning("targets: %s cannot be written: %s", self._wanted_file, error)

    def info(self) -> dict[str, object]:
        """What there is and should be."""
        return {"there": dict(self._replicas), "wanted": dict(self._wanted), "problem": self._problem or None}
