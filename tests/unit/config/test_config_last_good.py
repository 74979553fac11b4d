"""The file that a proxy starts from while the operator is away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from spillway_sidecar.config import last_good
from spillway_sidecar.config.last_good import LastGoodRefusedError, LastGoodStore
from spillway_sidecar.config.snapshot import Snapshot
from spillway_wire.names import Provider
from spillway_wire.snapshot import BackendRef, Cluster, Endpoint, Endpoints, External, Resource, Route, Rule, SecretKeyRef, key_of

NOW = 1_800_000_000.0
RESOURCES: tuple[Resource, ...] = (
    Route(name="ml/chat", models=("m",), rules=(Rule(name="all", backends=(BackendRef(cluster="ml/x"),)),)),
    Cluster(
        name="ml/x",
        provider=Provider.OPENAI_COMPATIBLE,
        model="m",
        external=External(host="api.example.com", port=443, auth=SecretKeyRef(name="cloud", key="token")),
    ),
    Endpoints(name="ml/x", endpoints=(Endpoint(id="ml/x/external", host="api.example.com", port=443),)),
)
SNAPSHOT = Snapshot(version="5.7", epoch=5, resources={key_of(one): one for one in RESOURCES})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "last-good.json"


def store(path: Path, now: float = NOW) -> LastGoodStore:
    return LastGoodStore(path, lambda: now)


def refused(path: Path, now: float = NOW) -> str:
    with pytest.raises(LastGoodRefusedError) as error:
        store(path, now).load()
    return str(error.value.reason)


def test_what_was_saved_is_what_is_loaded(path: Path) -> None:
    """Folders are made, the file is the owner's only, nothing is left beside it."""
    store(path).save(SNAPSHOT)
    assert store(path).load() == SNAPSHOT
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in path.parent.iterdir()] == ["last-good.json"]


def test_no_file_is_no_start(path: Path) -> None:
    """The first start of a machine."""
    assert refused(path) == "Absent"


def test_age_is_held_against_the_clock(path: Path) -> None:
    """A day is the limit; so is a file that says it comes from the future."""
    store(path).save(SNAPSHOT)
    assert store(path, NOW + 86_400).load() == SNAPSHOT
    assert refused(path, NOW + 86_401) == "TooOld"
    assert store(path, NOW - 300).load() == SNAPSHOT
    assert refused(path, NOW - 301) == "TooOld"


def test_every_cut_is_noticed(path: Path) -> None:
    """At whatever byte the file ends."""
    store(path).save(SNAPSHOT)
    content = path.read_bytes()
    header = content.index(b"\n") + 1
    for length in [*range(0, header + 1, 7), header - 1, header, len(content) - 1]:
        path.write_bytes(content[:length])
        assert refused(path) == "Truncated"


def test_every_altered_byte_is_noticed(path: Path) -> None:
    """The checksum covers the snapshot; a header that does not read is corrupt too."""
    store(path).save(SNAPSHOT)
    content = path.read_bytes()
    for position in range(content.index(b"\n") + 1, len(content), 13):
        altered = bytearray(content)
        altered[position] ^= 1
        path.write_bytes(bytes(altered))
        assert refused(path) == "Corrupt"
    path.write_bytes(b"x" + content)
    assert refused(path) == "Corrupt"
    path.write_bytes(content.replace(last_good.FORMAT.encode(), b"spillway.last-good/9"))
    assert refused(path) == "Corrupt"


@pytest.mark.parametrize("body", [b"{}", b'{"type":"ping","id":1}'])
def test_a_file_that_holds_something_else_is_corrupt(path: Path, body: bytes) -> None:
    """Even with the right checksum."""
    path.parent.mkdir()
    path.write_bytes(_with_header(body))
    assert refused(path) == "Corrupt"


def test_an_inconsistent_snapshot_is_refused(path: Path) -> None:
    """It is checked like one from the stream."""
    broken = Snapshot(version="5.7", epoch=5, resources={key_of(RESOURCES[0]): RESOURCES[0]})
    store(path).save(broken)
    assert refused(path) == "Inconsistent"


def test_a_path_that_cannot_be_read_is_refused(path: Path) -> None:
    """A folder in its place, say."""
    path.mkdir(parents=True)
    assert refused(path) == "Unreadable"


def test_a_failed_write_leaves_the_old_file_whole(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full at the worst moment: nothing is lost, nothing is left over."""
    store(path).save(SNAPSHOT)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store(path).save(Snapshot(version="5.8", epoch=5, resources=SNAPSHOT.resources))
    assert store(path).load() == SNAPSHOT
    assert [one.name for one in path.parent.iterdir()] == ["last-good.json"]


def _with_header(body: bytes) -> bytes:
    header = {"format": last_good.FORMAT, "saved_at": NOW, "length": len(body), "blake2b": last_good._digest(body)}
    return json.dumps(header).encode() + b"\n" + body
