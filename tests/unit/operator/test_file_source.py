"""The file source over a real folder, polled by hand on a clock that the test moves."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from tests.fakes.operator_core import MOMENT, endpoint

from spillway_operator.api import ObjectKey
from spillway_operator.sources.files import FilePace, FileSource
from spillway_operator.store import BACKEND, ROUTE, Store

CHAT = ObjectKey(ROUTE, "default", "chat")
TEXT = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec:
  models: [chat]
  rules: [{name: all, backendRefs: [{name: fast, weight: %s}]}]
"""
ENDPOINTS = '{"endpoints": {"default/fast": [{"id": "fast-0", "host": "127.0.0.1", "port": 9000, "inbound": true}]}}'


class Folder:
    def __init__(self, root: Path, *, endpoints: bool = False, paths: tuple[Path, ...] | None = None) -> None:
        self.root = root
        self.store = Store()
        self.now = 0.0
        self.endpoints_file = root / "endpoints.json"
        self.source = FileSource(
            self.store,
            paths=paths or (root,),
            endpoints_file=self.endpoints_file if endpoints else None,
            clock=lambda: self.now,
            wall_clock=lambda: MOMENT,
            pace=FilePace(grace_seconds=0.1),
        )

    def write(self, name: str, text: str | bytes) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    async def settle(self) -> None:
        """Enough polls for anything to be seen, read and given up."""
        for _ in range(5):
            self.now += 0.1
            await self.source.poll()

    def weight(self) -> int | None:
        entry = self.store.get(CHAT)
        if entry is None or entry.object is None:
            return None
        return entry.object.spec.rules[0].backend_refs[0].weight  # type: ignore[union-attr]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


async def test_everything_is_read_by_the_time_it_has_started(folder: Folder):
    folder.write("a.yaml", TEXT % 1)
    folder.write("deep/er/b.yml", TEXT.replace("chat", "more") % 1)
    await folder.source.start()
    assert folder.weight() == 1
    assert folder.source.info()["files"] == 2
    await folder.source.stop()


async def test_files_that_appear_change_and_go_are_followed(folder: Folder):
    await folder.source.poll(settled=True)
    folder.write("a.yaml", TEXT % 1)
    await folder.settle()
    assert folder.weight() == 1
    folder.write("a.yaml", TEXT % 2)
    await folder.settle()
    assert folder.weight() == 2
    (folder.root / "a.yaml").unlink()
    await folder.settle()
    assert folder.store.get(CHAT) is None


async def test_a_file_is_read_when_it_has_looked_the_same_twice(folder: Folder):
    await folder.source.poll(settled=True)
    folder.write("a.yaml", TEXT % 1)
    await folder.source.poll()
    assert folder.weight() is None
    await folder.source.poll()
    assert folder.weight() == 1


async def test_a_writer_at_work_is_left_alone(folder: Folder):
    folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    text = TEXT % 7
    for end in range(10, len(text), 10):
        folder.write("a.yaml", text[:end])
        await folder.source.poll()
        assert folder.weight() == 1
        assert folder.store.problems() == ()
    folder.write("a.yaml", text)
    await folder.settle()
    assert folder.weight() == 7


async def test_a_file_left_half_written_keeps_the_last_good_version_and_is_told(folder: Folder):
    folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    folder.write("a.yaml", (TEXT % 7)[:30])
    await folder.settle()
    assert folder.weight() == 1
    assert folder.store.problems()


async def test_an_editor_that_replaces_the_file_by_another(folder: Folder):
    path = folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    seen = []
    folder.store.watch(lambda key: seen.append((key, folder.weight())))
    # Away with the old one, look, and only then the new one: as some editors save.
    path.rename(folder.root / "a.yaml~")
    folder.now += 0.02
    await folder.source.poll()
    folder.write("a.yaml.tmp", TEXT % 2).rename(path)
    await folder.settle()
    assert seen == [(CHAT, 2)]


async def test_a_touched_file_is_read_and_not_parsed_again(folder: Folder):
    path = folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    entry = folder.store.get(CHAT)
    os.utime(path, (1, 1))
    await folder.settle()
    assert folder.source.info()["reads"] == 2
    assert folder.store.get(CHAT) is entry


async def test_an_edit_of_the_same_size_and_time_is_seen(folder: Folder):
    path = folder.write("a.yaml", TEXT % 1)
    os.utime(path, (1, 1))
    await folder.source.poll(settled=True)
    folder.write("a.yaml", TEXT % 2)
    os.utime(path, (1, 1))
    await folder.settle()
    assert folder.weight() == 2


async def test_a_renamed_file_takes_its_objects_along(folder: Folder):
    path = folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    path.rename(folder.root / "z.yaml")
    await folder.settle()
    entry = folder.store.get(CHAT)
    assert entry is not None
    assert entry.origin.endswith("z.yaml:1")
    assert entry.generation == 1


async def test_hidden_files_other_suffixes_and_the_settings_are_no_resources(folder: Folder):
    for name in (".a.yaml", "a.yaml~", "a.txt", "spillway.yaml", ".git/a.yaml"):
        folder.write(name, TEXT % 1)
    await folder.source.poll(settled=True)
    assert folder.store.get(CHAT) is None


async def test_a_single_file_can_be_named(tmp_path: Path):
    folder = Folder(tmp_path, paths=(tmp_path / "one.yaml",))
    folder.write("one.yaml", TEXT % 1)
    folder.write("two.yaml", TEXT.replace("chat", "more") % 1)
    await folder.source.poll(settled=True)
    assert folder.weight() == 1
    assert folder.store.info()["routes"] == 1


async def test_a_folder_that_went_away_deletes_nothing_and_is_told(tmp_path: Path):
    inside = tmp_path / "mount"
    folder = Folder(inside)
    folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    inside.rename(tmp_path / "elsewhere")
    await folder.settle()
    assert folder.weight() == 1
    assert [problem.message for problem in folder.store.problems()] == ["the folder is not there; what it declared stays in force"]
    (tmp_path / "elsewhere").rename(inside)
    folder.write("a.yaml", TEXT % 2)
    await folder.settle()
    assert folder.weight() == 2
    assert folder.store.problems() == ()


async def test_a_path_that_is_not_there_is_told_until_it_comes(tmp_path: Path):
    folder = Folder(tmp_path, paths=(tmp_path / "later.yaml",))
    await folder.source.poll(settled=True)
    assert [problem.message for problem in folder.store.problems()] == ["there is no such file or folder"]
    folder.write("later.yaml", TEXT % 1)
    await folder.settle()
    assert folder.weight() == 1
    assert folder.store.problems() == ()


async def test_a_named_file_that_is_deleted_takes_its_objects_along(tmp_path: Path):
    folder = Folder(tmp_path, paths=(tmp_path / "one.yaml",))
    path = folder.write("one.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    path.unlink()
    await folder.settle()
    assert folder.store.get(CHAT) is None


async def test_a_poll_that_fails_is_not_the_last(folder: Folder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    folder.source._pace = FilePace(poll_seconds=0.0, failure_seconds=0.0, scan_share=1.0)
    calls = []
    done = asyncio.Event()

    async def poll(*, settled: bool = False) -> None:
        calls.append(settled)
        if len(calls) > 2:
            done.set()
        if not settled:
            raise OSError("the disk is on fire")

    monkeypatch.setattr(folder.source, "poll", poll)
    await folder.source.start()
    async with asyncio.timeout(5):
        await done.wait()
    await folder.source.stop()
    assert "poll failed" in caplog.text


async def test_a_folder_in_place_of_a_file_is_a_problem_and_no_crash(tmp_path: Path):
    folder = Folder(tmp_path)
    (tmp_path / "a.yaml").mkdir()
    folder.write("b.yaml", TEXT % 1)
    await folder.settle()
    assert folder.weight() == 1


async def test_a_file_that_cannot_be_read_keeps_what_it_declared(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    path = folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    read = Path.read_bytes

    def refuse(self: Path) -> bytes:
        if self == path:
            raise PermissionError(13, "Permission denied")
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    os.utime(path, (1, 1))
    await folder.settle()
    assert folder.weight() == 1
    (problem,) = folder.store.problems()
    assert problem.message == "the file cannot be read: permission denied"
    os.utime(path, (2, 2))
    await folder.settle()
    assert len(folder.store.problems()) == 1
    monkeypatch.undo()
    os.utime(path, (3, 3))
    await folder.settle()
    assert folder.store.problems() == ()


# -- the endpoints file


async def test_endpoints_come_from_their_file(tmp_path: Path):
    folder = Folder(tmp_path, endpoints=True)
    folder.write("endpoints.json", ENDPOINTS)
    await folder.source.poll(settled=True)
    assert folder.store.endpoints("default/fast") == (endpoint("fast-0"),)
    folder.write("endpoints.json", ENDPOINTS.replace("9000", "9001"))
    await folder.settle()
    assert folder.store.endpoints("default/fast")[0].port == 9001


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Input data was truncated"),
        ('{"endpoints": {"default/fast": [{"id": "x", "host": "h", "port": 0}]}}', "port"),
        ('{"endpoints": {"fast": []}}', 'write "namespace/name"'),
        ('{"endpoints": {"a/b/c": []}}', 'write "namespace/name"'),
        ('{"endpionts": {}}', "unknown field"),
        (ENDPOINTS.replace("}]", '}, {"id": "fast-0", "host": "h", "port": 1}]'), "the endpoint fast-0 twice"),
    ],
)
async def test_a_bad_endpoints_file_changes_nothing_and_is_told(tmp_path: Path, text: str, said: str):
    folder = Folder(tmp_path, endpoints=True)
    folder.write("endpoints.json", ENDPOINTS)
    await folder.source.poll(settled=True)
    folder.write("endpoints.json", text)
    await folder.settle()
    assert folder.store.endpoints("default/fast") == (endpoint("fast-0"),)
    (problem,) = folder.store.problems()
    assert said in problem.message
    folder.write("endpoints.json", ENDPOINTS)
    await folder.settle()
    assert folder.store.problems() == ()


async def test_an_endpoints_file_that_goes_leaves_the_endpoints(tmp_path: Path):
    folder = Folder(tmp_path, endpoints=True)
    path = folder.write("endpoints.json", ENDPOINTS)
    await folder.source.poll(settled=True)
    path.unlink()
    await folder.settle()
    assert folder.store.endpoints("default/fast") == (endpoint("fast-0"),)
    assert len(folder.store.problems()) == 1
    folder.write("endpoints.json", ENDPOINTS)
    await folder.settle()
    assert folder.store.problems() == ()


async def test_an_endpoints_file_that_is_not_there_yet_is_told_and_taken_when_it_comes(tmp_path: Path):
    folder = Folder(tmp_path, endpoints=True)
    await folder.source.poll(settled=True)
    assert len(folder.store.problems()) == 1
    folder.write("endpoints.json", ENDPOINTS)
    await folder.settle()
    assert folder.store.endpoints("default/fast") == (endpoint("fast-0"),)
    assert folder.store.problems() == ()


async def test_an_endpoints_file_that_cannot_be_read_leaves_the_endpoints(tmp_path: Path):
    folder = Folder(tmp_path, endpoints=True)
    path = folder.write("endpoints.json", ENDPOINTS)
    await folder.source.poll(settled=True)
    path.unlink()
    path.mkdir()
    await folder.settle()
    assert folder.store.endpoints("default/fast") == (endpoint("fast-0"),)
    assert "cannot be read" in folder.store.problems()[0].message


async def test_info_tells_what_is_watched(tmp_path: Path):
    folder = Folder(tmp_path, endpoints=True)
    folder.write("a.yaml", TEXT % 1)
    await folder.source.poll(settled=True)
    info = folder.source.info()
    assert info["paths"] == [str(tmp_path)]
    assert info["ledger"]["objects"] == 1
    assert folder.store.get(ObjectKey(BACKEND, "default", "x")) is None
