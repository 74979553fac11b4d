"""Replicas without a cluster: two files."""

from __future__ import annotations

import json
from pathlib import Path

from spillway_operator.policies import reasons
from spillway_operator.scaling.ports import TargetRef, TargetState
from spillway_operator.sources.file_targets import FileTargets

FAST, SLOW = TargetRef("default", "any-name"), TargetRef("default", "slow", kind="StatefulSet")
BACKENDS = {FAST: "default/fast", SLOW: "default/slow"}


def test_what_there_is_and_what_there_should_be(tmp_path: Path):
    there, wanted = tmp_path / "there.json", tmp_path / "wanted.json"
    there.write_text('{"replicas": {"default/fast": 2}}')
    targets = FileTargets(there, wanted)
    targets.retain(BACKENDS)
    assert targets.state(FAST) == TargetState(2)
    missing = targets.state(SLOW)
    assert missing is not None
    assert missing.problem == reasons.TARGET_NOT_FOUND
    targets.scale(FAST, 5)
    assert json.loads(wanted.read_text()) == {"replicas": {"default/fast": 5}}
    before = wanted.stat().st_mtime_ns
    targets.scale(FAST, 5)
    assert wanted.stat().st_mtime_ns == before
    there.write_text('{"replicas": {"default/fast": 5}}')
    assert targets.state(FAST) == TargetState(2), "the files are looked at once a tick"
    targets.retain({SLOW: "default/slow"})
    assert json.loads(wanted.read_text()) == {"replicas": {}}, "who asks for nothing leaves it to the file of the run"


def test_a_file_that_cannot_be_read_is_not_known(tmp_path: Path):
    there = tmp_path / "there.json"
    there.write_text('{"replicas": {"default/fast": -1}}')
    targets = FileTargets(there, tmp_path / "missing" / "wanted.json")
    targets.retain(BACKENDS)
    assert targets.state(FAST) is None
    targets.scale(FAST, 5)  # cannot be written, which is no trouble of anybody else
    there.unlink()
    targets.retain(BACKENDS)
    assert targets.state(FAST) is None
    assert targets.info()["problem"]


def test_without_files_nothing_has_replicas():
    targets = FileTargets()
    targets.retain(BACKENDS)
    state = targets.state(FAST)
    assert state is not None
    assert state.problem == reasons.TARGET_NOT_FOUND
    assert "spillway.yaml" in state.message
    targets.scale(FAST, 1)
