"""Finds the values of secrets that a snapshot names. A value never enters a snapshot, a log line, a repr or an admin page.

Looked for in this order: the environment variable `SPILLWAY_SECRET_<NAME>_<KEY>` (upper case, other characters as `_`),
then the files `<namespace>/<name>/<key>` and `<name>/<key>` under the secrets directory, which is how Kubernetes mounts them
and how standalone mode keeps them. The first that exists decides. A file that changed is read again: it is looked at when
the secret is asked for, at most each two seconds, so that a rotated key takes effect without a restart and a request costs a
dictionary lookup. The files are small and local; they are read on the spot.

A value ends up in a header, so it is printable ASCII in one line (one trailing newline is cut), at most 8 KiB. A secret that is
missing or unfit is None and a `ClusterProblem`, which says where it was looked for and goes to the operator with a report.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from spillway_wire.loads import ClusterProblem
from spillway_wire.snapshot import SecretKeyRef

REASON_MISSING: Final = "SecretMissing"
REASON_INVALID: Final = "SecretInvalid"
ENVIRONMENT_PREFIX: Final = "SPILLWAY_SECRET_"
DIRECTORY_VARIABLE: Final = "SPILLWAY_SECRETS_DIR"
MAX_SECRET_BYTES: Final = 8 * 1024
RECHECK_SECONDS: Final = 2.0

_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._-]{1,253}")  # as Kubernetes names secrets and keys; never a path
_FIT = re.compile(rb"[ -~]+")

_Signature = tuple[int, int, int]


class Secret:
    """A value that shows itself only to who asks: `reveal()`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(...)"


class _Unfit(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Found:
    """What the last look gave. `source` and `signature` tell whether a file is still the one that was read."""

    checked_at_seconds: float
    secret: Secret | None = None
    reason: str = ""
    message: str = ""
    source: Path | None = None
    signature: _Signature | None = None


class SecretResolver:
    """Values by cluster and reference. `environ`, `directory` and the monotonic `clock` come from the composition root."""

    def __init__(self, *, environ: Mapping[str, str], directory: Path | None, clock: Callable[[], float]) -> None:
        self._environ = environ
        self._directory = directory
        self._clock = clock
        self._found: dict[tuple[str, SecretKeyRef], _Found] = {}

    def resolve(self, cluster: str, ref: SecretKeyRef) -> Secret | None:
        """The secret that `cluster` (`namespace/name`) refers to, or None, which is then one of `problems()`."""
        now = self._clock()
        known = self._found.get((cluster, ref))
        if known is None or now - known.checked_at_seconds >= RECHECK_SECONDS:
            known = self._look(cluster, ref, known, now)
            self._found[cluster, ref] = known
        return known.secret

    def problems(self) -> tuple[ClusterProblem, ...]:
        """What is missing or unfit as of the last look, by cluster."""
        return tuple(
            ClusterProblem(cluster, found.reason, found.message[:1024])
            for (cluster, _), found in self._found.items()
            if found.secret is None
        )

    def retain(self, wanted: Collection[tuple[str, SecretKeyRef]]) -> None:
        """Forgets every secret, and its problem, that the snapshot in force no longer names."""
        self._found = {key: found for key, found in self._found.items() if key in wanted}

    def info(self) -> dict[str, object]:
        """Which secrets are known and which are not; never a value."""
        return {
            f"{cluster} {ref.name}/{ref.key}": "found" if found.secret else found.reason
            for (cluster, ref), found in self._found.items()
        }

    def _look(self, cluster: str, ref: SecretKeyRef, known: _Found | None, now: float) -> _Found:
        try:
            return self._read(cluster.partition("/")[0], ref, known, now)
        except _Unfit as unfit:
            return _Found(now, reason=unfit.reason, message=str(unfit))

    def _read(self, namespace: str, ref: SecretKeyRef, known: _Found | None, now: float) -> _Found:
        title = f"secret {ref.name!r} key {ref.key!r}"
        if not (_NAME.fullmatch(ref.name) and _NAME.fullmatch(ref.key)):
            raise _Unfit(REASON_INVALID, f"{title}: not a name that a secret or a key can have")
        variable = environment_name(ref)
        value = self._environ.get(variable)
        if value:
            return _Found(now, _secret(value.encode("utf-8", "surrogateescape"), title))
        relative = [Path(ref.name, ref.key)]
        if _NAME.fullmatch(namespace):
            relative.insert(0, Path(namespace, ref.name, ref.key))
        if self._directory is not None:
            for path in relative:
                found = _from_file(self._directory / path, title, known, now)
                if found is not None:
                    return found
        places = ", ".join((f"environment variable {variable}", *(f"file ${DIRECTORY_VARIABLE}/{path}" for path in relative)))
        unset = "" if self._directory is not None else f" ({DIRECTORY_VARIABLE} is not set)"
        raise _Unfit(REASON_MISSING, f"{title} was not found; looked at {places}{unset}")


def environment_name(ref: SecretKeyRef) -> str:
    """The environment variable that holds a secret, e.g. `SPILLWAY_SECRET_OPENAI_API_KEY` for `openai` and `api-key`."""
    return ENVIRONMENT_PREFIX + re.sub(r"[^A-Z0-9]", "_", f"{ref.name}_{ref.key}".upper())


def _from_file(path: Path, title: str, known: _Found | None, now: float) -> _Found | None:
    """The secret in a file; None if there is no such file. Links are followed: Kubernetes mounts secrets as links."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe must not hold the process up
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _Unfit(REASON_MISSING, f"{title}: its file cannot be opened: {error.strerror}") from None
    with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - the descriptor is open already
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _Unfit(REASON_INVALID, f"{title}: its file is not a regular file")
        signature = (status.st_mtime_ns, status.st_ino, status.st_size)
        if known is not None and known.secret is not None and (known.source, known.signature) == (path, signature):
            return _Found(now, known.secret, source=path, signature=signature)
        try:
            content = file.read(MAX_SECRET_BYTES + 3)
        except OSError as error:
            raise _Unfit(REASON_MISSING, f"{title}: its file cannot be read: {error.strerror}") from None
    return _Found(now, _secret(content, title), source=path, signature=signature)


def _secret(content: bytes, title: str) -> Secret:
    value = content[: -2 if content.endswith(b"\r\n") else -1] if content.endswith(b"\n") else content
    if len(value) > MAX_SECRET_BYTES:
        raise _Unfit(REASON_INVALID, f"{title}: longer than {MAX_SECRET_BYTES} bytes")
    if not _FIT.fullmatch(value):
        raise _Unfit(
            REASON_INVALID, f"{title}: empty, or holds characters that a header cannot carry (one line of printable ASCII)"
        )
    return Secret(value.decode("ascii"))
