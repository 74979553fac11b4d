"""The examples are good resources; `tests/integration/cli` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from spillway.__main__ import main
from spillway.run.standalone import FILE_NAME, Standalone, parse

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
FOLDERS = sorted(path for path in EXAMPLES.iterdir() if path.is_dir() and path.name != "kubernetes")  # that is engines alone


def test_there_are_examples():
    assert {folder.name for folder in FOLDERS} >= {"quickstart", "laptop", "rules"}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_example_is_valid(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["validate", str(folder)]) == 0, capsys.readouterr().out
    assert "warning" not in capsys.readouterr().out


def test_the_examples_are_valid_side_by_side(capsys: pytest.CaptureFixture[str]):
    assert main(["validate", *map(str, FOLDERS)]) == 0, capsys.readouterr().out
    assert "warning" not in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob(f"*/{FILE_NAME}")), ids=lambda path: path.parent.name)
def test_what_an_example_simulates_is_a_backend_with_pods(path: Path):
    standalone, problems = parse(path.read_text(), str(path), Standalone())
    assert problems == []
    documents = [
        document for other in path.parent.glob("*.yaml") if other != path for document in yaml.safe_load_all(other.read_text())
    ]
    pods = {f"default/{d['metadata']['name']}" for d in documents if d["kind"] == "ModelBackend" and "pods" in d["spec"]}
    assert standalone.simulate.keys() == pods
