"""`spillway validate`: what is printed and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.fakes.resources import backend, route

from spillway.__main__ import main

BAD = Path(__file__).resolve().parents[2] / "fakes" / "docs_bad"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "backends.yaml").write_text(yaml.safe_dump_all([backend("fast"), backend("slow")]))
    (tmp_path / "routes.yaml").write_text(yaml.safe_dump(route()))
    (tmp_path / "spillway.yaml").write_text("simulate: {fast: {replicas: 2}}\n")
    return tmp_path


def test_good_documents_are_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "."]) == 0
    assert capsys.readouterr().out == "3 documents are valid\n"
    assert main(["validate", "routes.yaml", "spillway.yaml"]) == 0
    assert capsys.readouterr().out.endswith("\n1 document is valid (1 warning)\n")


def test_every_fault_is_a_line_in_the_order_of_the_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.yaml").write_text((folder / "routes.yaml").read_text().replace("models:", "modles:"))
    (folder / "worse.yaml").write_text("apiVersion: spillway.dev/v1alpha1\nkind: ModelRoute\nmetadata: {name: worse}\nspec: {\n")
    (folder / "zero.yaml").write_text(yaml.safe_dump(route("zero")))
    assert main(["validate", "."]) == 1
    printed = capsys.readouterr()
    assert printed.out.splitlines() == [
        'bad.yaml:6: spec.modles: unknown field; did you mean "models"?',
        "worse.yaml:4: the document ends too early: a [ or { is not closed, or a value is missing",
        'zero.yaml:7: spec.models[0]: "chat" belongs to ModelRoute default/chat (routes.yaml:1) already: remove it from one of the two',
    ]
    assert printed.err == "3 errors in 5 files\n"


def test_the_corpus_of_bad_documents_fails(capsys: pytest.CaptureFixture[str]) -> None:
    for file in sorted(BAD.glob("*.yaml")):
        assert main(["validate", str(file)]) == 1
        assert f"{file.name}:" in capsys.readouterr().out


def test_nothing_to_read_is_no_success(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path)]) == 1
    assert "no documents in" in capsys.readouterr().err
    assert main(["validate", str(tmp_path / "nowhere.yaml")]) == 1
    assert "cannot be read: no such file" in capsys.readouterr().out
