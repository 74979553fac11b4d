"""Ports, logs and watched files of a run."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from spillway.run.logs import BoundedLog
from spillway.run.ports import FIRST_PORT, Ports, first_ephemeral_port, is_free
from spillway.run.standalone import Simulation
from spillway.run.watch import StandaloneFiles


def test_ports_are_free_below_the_outgoing_range_and_stay_with_their_purpose():
    ports = Ports(seed=1)
    chosen = [ports(f"engine {number}") for number in range(5)]
    assert len(set(chosen)) == 5
    assert all(FIRST_PORT <= port < first_ephemeral_port() and is_free(port) for port in chosen)
    assert ports("engine 0") == chosen[0]
    ports.give_up("engine 0")
    assert ports("engine 0") not in chosen
    assert ports.info().keys() == {f"engine {number}" for number in range(5)}


def test_a_taken_port_is_passed_over():
    expected = Ports(seed=2)("engine")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", expected))
        taken.listen()
        assert not is_free(expected)
        assert Ports(seed=2)("engine") != expected


def test_a_log_is_bounded_and_remembers_its_last_line(tmp_path: Path):
    log = BoundedLog(tmp_path / "logs" / "x.log", max_bytes=100)
    for number in range(50):
        log.write(f"line {number} of the log\n".encode())
    assert log.last_line() == "line 49 of the log"
    log.close()
    kept = (tmp_path / "logs" / "x.log.1").read_text() + (tmp_path / "logs" / "x.log").read_text()
    assert kept.endswith("line 49 of the log\n")
    assert len(kept) <= 200
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["x.log", "x.log.1"]


def test_a_log_goes_on_after_the_last_run_and_its_tail_is_of_this_process(tmp_path: Path):
    first = BoundedLog(tmp_path / "x.log")
    first.write(b"old\n")
    first.close()
    log = BoundedLog(tmp_path / "x.log")
    assert log.last_line() == ""
    log.write(b"new\n\n")
    assert log.last_line() == "new"
    log.forget_tail()
    assert log.last_line() == ""
    log.close()
    assert (tmp_path / "x.log").read_text() == "old\nnew\n\n"


def test_standalone_files_are_read_when_they_change_and_only_then(tmp_path: Path):
    path = tmp_path / "spillway.yaml"
    files = StandaloneFiles([str(tmp_path), str(tmp_path / "route.yaml")])
    first = files.read_if_changed()
    assert first is not None
    assert first.simulate == {}
    assert files.read_if_changed() is None

    path.write_text("simulate: {fast: 2}")
    changed = files.read_if_changed()
    assert changed is not None
    assert changed.simulate == {"default/fast": Simulation(replicas=2)}
    assert files.read_if_changed() is None

    path.write_text("simulate: {fast: [")
    os.utime(path, ns=(1, 1))
    broken = files.read_if_changed()
    assert broken == changed
    assert [problem.file for problem in files.problems] == [str(path)]

    path.unlink()
    gone = files.read_if_changed()
    assert gone is not None
    assert gone.simulate == {}
    assert files.problems == []


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path):
    (tmp_path / "spillway.yaml").mkdir()
    files = StandaloneFiles([str(tmp_path)])
    assert files.read_if_changed() is not None
    assert "cannot be read" in str(files.problems[0])
