"""The parts of the tests' own cluster that need no cluster: what is kept, what is packed, what runs."""

from __future__ import annotations

import json
import os
import sys
import tarfile
from pathlib import Path

import pytest
from e2e.cluster import cache, images, programs
from e2e.cluster.keeper import PROGRAMS, RESTART_SECONDS, STOPPED, Keeper, Program
from e2e.cluster.layout import ClusterError, Layout, Tier


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_what_is_kept_is_made_once() -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "file").write_text("x")

    assert (cache.kept("a-1", make) / "file").read_text() == "x"
    assert cache.kept("a-1", make) == cache.kept("a-1", make)
    assert len(made) == 1
    cache.kept("a-2", make)
    assert len(made) == 2


def test_what_could_not_be_made_is_not_kept() -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise ClusterError("no")

    with pytest.raises(ClusterError):
        cache.kept("a-1", fail)
    assert list(cache.kept("a-1", lambda folder: None).iterdir()) == []


def test_a_layer_tells_nothing_of_when_and_by_whom_it_was_packed(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    for name in ("b", "a", "sub/c"):
        (folder / name).write_text(name)
    first = images.layer(tmp_path / "1.tar", folder, at="opt/x")
    os.utime(folder / "a", (1, 1))
    second = images.layer(tmp_path / "2.tar", folder, at="opt/x")
    assert first.digest == second.digest
    with tarfile.open(second.path) as tar:
        assert tar.getnames() == ["opt", "opt/x", "opt/x/a", "opt/x/b", "opt/x/sub", "opt/x/sub/c"]
        assert {(one.mtime, one.uid, one.uname) for one in tar} == {(0, 0, "")}


def test_an_archive_names_its_layers_in_order(tmp_path: Path) -> None:
    layers = []
    for name in ("base", "top"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text(name)
        layers.append(images.layer(tmp_path / f"{name}.tar", tmp_path / name))
    settings = images.Settings(("python", "-m", "x"), environment={"A": "b"})
    path = images.archive(tmp_path / "image.tar", "example/x:1", layers, settings)
    with tarfile.open(path) as tar:

        def read(name: str) -> bytes:
            file = tar.extractfile(name)
            assert file is not None
            return file.read()

        (manifest,) = json.loads(read("manifest.json"))
        assert manifest["RepoTags"] == ["example/x:1"]
        assert manifest["Layers"] == [f"{one.digest}.tar" for one in layers]
        assert read(manifest["Layers"][1]) == layers[1].path.read_bytes()
        configuration = json.loads(read(manifest["Config"]))
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{one.digest}" for one in layers]
    assert configuration["config"]["Entrypoint"] == ["python", "-m", "x"]
    assert "A=b" in configuration["config"]["Env"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [(None, "there is no `go` on PATH"), ("go1.27.1", "`go` is go1.27.1"), ("", "`go` is broken")],
)
def test_without_the_right_go_one_is_told_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str | None, words: str
) -> None:
    if answer is not None:
        (tmp_path / "go").write_text(f"#!{sys.executable}\nprint({answer!r})\n")
        (tmp_path / "go").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=words) as raised:
        programs.have(Tier.CONTROL_PLANE)
    assert "KUBECONFIG" in str(raised.value)
    assert "install Go 1.26" in str(raised.value)


def test_each_module_of_tools_requires_what_its_programs_say_they_are() -> None:
    groups = {group for each in programs.GO_GROUPS.values() for group in each}
    built = {folder.name for folder in programs.TOOLS.iterdir()} - {"kinds"}  # of which only files are taken
    assert {group.name for group in groups} == built
    for group in groups:
        module = (programs.TOOLS / group.name / "go.mod").read_text()
        assert f"\ngo {programs.GO}" in module
        if group.version_of:
            assert f"{group.version_of} v" in module


def test_a_layout_survives_its_file(tmp_path: Path) -> None:
    layout = Layout.fresh(tmp_path, Tier.CONTROL_PLANE)
    layout.save()
    assert Layout.load(tmp_path) == layout
    ports = {layout.api_port, layout.etcd_port, layout.etcd_peer_port, layout.controller_manager_port, layout.scheduler_port}
    assert len(ports) == 5


class Kept:
    """A keeper of one program, stepped by hand."""

    def __init__(self, folder: Path, program: Program) -> None:
        self.folder = folder
        self.name = program.name
        self.keeper = Keeper(folder, [program])

    def step(self, now: float) -> None:
        self.keeper.step(now)

    @property
    def said(self) -> dict[str, object]:
        said: dict[str, dict[str, object]] = json.loads((self.folder / PROGRAMS).read_text())
        assert said == self.keeper.info()
        return said[self.name]


def test_a_program_runs_unless_its_name_lies_among_the_stopped(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Program("sleep", ("sleep", "60")))
    kept.step(0)
    assert kept.said["running"]
    (tmp_path / STOPPED / "sleep").touch()
    kept.step(1)
    assert not kept.said["running"]
    (tmp_path / STOPPED / "sleep").unlink()
    kept.step(2)
    assert kept.said["running"]
    assert kept.said["starts"] == 2
    kept.keeper.run(lambda: True)
    assert not kept.said["running"], "the end of the keeper is its end"


def test_a_program_waits_for_what_it_comes_after_once(tmp_path: Path) -> None:
    answers = [False, True]
    kept = Kept(tmp_path, Program("sleep", ("sleep", "60"), after=lambda: answers.pop(0)))
    kept.step(0)
    assert not kept.said["running"]
    kept.step(1)
    assert kept.said["running"]
    kept.step(2)
    kept.keeper.run(lambda: True)


def test_a_program_that_dies_is_started_again_a_while_later(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Program("false", ("false",)))
    kept.step(0)
    pid = kept.said["pid"]
    assert isinstance(pid, int)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    kept.step(1)
    assert kept.said == {"running": False, "pid": None, "starts": 1}
    kept.step(1 + RESTART_SECONDS / 2)
    assert kept.said["starts"] == 1
    kept.step(1 + RESTART_SECONDS)
    assert kept.said["starts"] == 2
    kept.keeper.run(lambda: True)
