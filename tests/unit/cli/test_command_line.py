"""The command line: lazy, helpful, with options from the environment."""

from __future__ import annotations

import argparse
import subprocess
import sys

import pytest

from spillway import __main__ as main_module
from spillway.__main__ import COMMANDS, main, parse

NAMES = [name for name, _, _ in COMMANDS]


def test_help_is_there_without_loading_what_commands_run():
    """Modules that take long to import, or belong to a part that help does not need, stay away."""
    code = "import sys; from spillway.__main__ import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())
    assert "spillway.options" in loaded
    assert not loaded & {
        "pydantic",
        "aiohttp",
        "kopf",
        "kubernetes",
        "yaml",
        "msgspec",
        "asyncio",
        "spillway_operator",
        "spillway_sidecar",
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_command_has_help_with_examples(name: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"  spillway {name}" in shown.partition("examples:")[2]
    assert max(map(len, shown.partition("examples:")[0].splitlines())) <= 100


def test_the_list_of_commands_fits_on_lines_of_its_own(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    for name, purpose, _ in COMMANDS:
        assert any(line.split(maxsplit=1) == [name, purpose] for line in shown.splitlines())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required: COMMAND"),
        (["rnu"], "invalid choice: 'rnu'"),
        (["get"], "routes|backends"),
        (["get", "pods"], "'pods' is neither routes nor backends"),
        (["run"], "PATH"),
        (["run", "x", "--port", "70000"], "70000 is not a port"),
        (["run", "x", "--simulate", "fast"], "'fast' is not NAME=N"),
        (["run", "x", "--simulate", "Fast=2"], "'Fast' is not the name of a backend"),
        (["sim-engine", "--decode-rate", "0"], "0 is not a number above zero"),
        (["sim-engine", "--max-running", "-3"], "-3 is not a whole number above zero"),
    ],
)
def test_a_wrong_command_line_is_told_and_ends_with_2(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(argv)
    captured = capsys.readouterr()
    assert (ended.value.code, captured.out) == (2, "")
    assert said in captured.err


def test_an_option_comes_from_the_environment_unless_the_command_line_says_otherwise(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPILLWAY_ADMIN_PORT", "9081")
    monkeypatch.setenv("SPILLWAY_STATE_DIR", "/somewhere")
    args = parse(["run", "x"])
    assert (args.admin_port, args.state_dir, args.port) == (9081, "/somewhere", 8080)
    assert parse(["run", "x", "--admin-port", "1"]).admin_port == 1


def test_a_wrong_value_in_the_environment_is_told_as_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("SPILLWAY_PORT", "many")
    with pytest.raises(SystemExit):
        main(["run", "x"])
    assert "--port" in capsys.readouterr().err


def test_simulated_engines_are_counted_by_the_backends_full_name():
    assert parse(["run", "x", "--simulate", "a=2", "--simulate", "ml/b=0"]).simulate == [
        ("default/a", 2),
        ("ml/b", 0),
    ]


def test_a_fault_that_makes_no_sense_stops_the_engine_before_it_starts(capsys: pytest.CaptureFixture[str]):
    assert main(["sim-engine", "--fault", "delay:second=1"]) == 2
    assert "'delay:second=1'" in capsys.readouterr().err


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch: pytest.MonkeyPatch):
    def interrupted(name: str) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "parse", lambda _: argparse.Namespace(run=interrupted))
    assert main(["get"]) == 130


def test_version_names_spillway_and_python(capsys: pytest.CaptureFixture[str]):
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("spillway ")


def test_options_may_stand_between_the_arguments():
    args = parse(["get", "backends", "-o", "wide", "fast", "-w"])
    assert (args.kind, args.name, args.output, args.watch) == ("ModelBackend", "fast", "wide", True)
    assert parse(["run", "a", "--quiet", "b"]).paths == ["a", "b"]
