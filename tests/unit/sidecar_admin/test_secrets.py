"""Secrets are found where the contract says, follow their files, and never show their values."""

import os
from pathlib import Path

import pytest

from spillway_sidecar.secrets import (
    MAX_SECRET_BYTES,
    REASON_INVALID,
    REASON_MISSING,
    RECHECK_SECONDS,
    SecretResolver,
    environment_name,
)
from spillway_wire.snapshot import SecretKeyRef

REF = SecretKeyRef("openai", "api-key")
CLUSTER = "team-a/gpt"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Bench:
    def __init__(self, directory: Path | None, environ: dict[str, str] | None = None) -> None:
        self.clock = Clock()
        self.environ = environ or {}
        self.resolver = SecretResolver(environ=self.environ, directory=directory, clock=self.clock)

    def value(self, ref: SecretKeyRef = REF, cluster: str = CLUSTER) -> str | None:
        secret = self.resolver.resolve(cluster, ref)
        return secret.reveal() if secret else None

    def later(self) -> None:
        self.clock.now += RECHECK_SECONDS

    def reason(self) -> str:
        (problem,) = self.resolver.problems()
        assert problem.cluster == CLUSTER
        return problem.reason


def write(directory: Path, path: str, content: bytes | str) -> Path:
    file = directory / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def test_environment_names() -> None:
    assert environment_name(REF) == "SPILLWAY_SECRET_OPENAI_API_KEY"
    assert environment_name(SecretKeyRef("my.secret-2", "a_b")) == "SPILLWAY_SECRET_MY_SECRET_2_A_B"


def test_order_is_environment_then_the_namespaces_file_then_the_plain_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    write(tmp_path, "openai/api-key", "plain")
    assert bench.value() == "plain"
    write(tmp_path, "team-a/openai/api-key", "spaced")
    bench.later()
    assert bench.value() == "spaced"
    bench.environ["SPILLWAY_SECRET_OPENAI_API_KEY"] = "env"
    bench.later()
    assert bench.value() == "env"
    bench.environ["SPILLWAY_SECRET_OPENAI_API_KEY"] = ""
    bench.later()
    assert bench.value() == "spaced", "an empty variable is an unset one"
    assert bench.resolver.problems() == ()


def test_another_namespaces_file_is_not_ours(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    write(tmp_path, "team-b/openai/api-key", "theirs")
    assert bench.value() is None


def test_a_missing_secret_says_where_it_was_looked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.value() is None
    (problem,) = bench.resolver.problems()
    assert problem.reason == REASON_MISSING
    for place in (
        "SPILLWAY_SECRET_OPENAI_API_KEY",
        "SPILLWAY_SECRETS_DIR/team-a/openai/api-key",
        "SPILLWAY_SECRETS_DIR/openai/api-key",
    ):
        assert place in problem.message
    assert str(tmp_path) not in problem.message
    write(tmp_path, "openai/api-key", "found")
    assert bench.value() is None, "looked at again only after two seconds"
    bench.later()
    assert bench.value() == "found"
    assert bench.resolver.problems() == ()


def test_without_a_directory_only_the_environment_is_looked_at() -> None:
    bench = Bench(None)
    assert bench.value() is None
    assert "SPILLWAY_SECRETS_DIR is not set" in bench.resolver.problems()[0].message
    bench.environ["SPILLWAY_SECRET_OPENAI_API_KEY"] = "env"
    bench.later()
    assert bench.value() == "env"


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    file = write(tmp_path, "openai/api-key", "one")
    first = bench.resolver.resolve(CLUSTER, REF)
    bench.later()
    assert bench.resolver.resolve(CLUSTER, REF) is first
    file.write_bytes(b"two")
    os.utime(file, ns=(1, 1))
    assert bench.value() == "one"
    bench.later()
    assert bench.value() == "two"
    file.unlink()
    bench.later()
    assert bench.value() is None
    assert bench.reason() == REASON_MISSING


def test_a_mounted_secret_that_is_swapped_by_link_is_followed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    write(tmp_path, "openai/..v1/api-key", "one")
    write(tmp_path, "openai/..v2/api-key", "two")
    data = tmp_path / "openai/..data"
    data.symlink_to("..v1")
    (tmp_path / "openai/api-key").symlink_to("..data/api-key")
    assert bench.value() == "one"
    data.unlink()
    data.symlink_to("..v2")
    bench.later()
    assert bench.value() == "two"


@pytest.mark.parametrize(
    ("content", "value"),
    [
        ("key", "key"),
        ("key\n", "key"),
        ("key\r\n", "key"),
        (" k e y ", " k e y "),
        ("x" * MAX_SECRET_BYTES + "\n", "x" * MAX_SECRET_BYTES),
        ("key\n\n", None),
        ("a\nb", None),
        ("key\r", None),
        ("a\tb", None),
        ("a\x00b", None),
        ("a\x7f", None),
        ("ключ", None),
        (b"\xff\xfe", None),
        ("", None),
        ("\n", None),
        ("x" * (MAX_SECRET_BYTES + 1), None),
        ("x" * (MAX_SECRET_BYTES * 2), None),
    ],
)
def test_what_a_header_can_carry(tmp_path: Path, content: str | bytes, value: str | None) -> None:
    bench = Bench(tmp_path)
    write(tmp_path, "openai/api-key", content)
    assert bench.value() == value
    assert [problem.reason for problem in bench.resolver.problems()] == ([] if value else [REASON_INVALID])


def test_an_unfit_variable_is_refused_without_falling_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"SPILLWAY_SECRET_OPENAI_API_KEY": "two\nlines"})
    write(tmp_path, "openai/api-key", "good")
    assert bench.value() is None
    assert bench.reason() == REASON_INVALID


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../etc", "/etc", "a\x00", "a b", "ü", "a\n"])
def test_names_that_would_be_paths_are_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, "passwd", "root")
    bench = Bench(tmp_path / "inner")
    assert bench.value(SecretKeyRef(name, "passwd")) is None
    assert bench.reason() == REASON_INVALID
    assert bench.value(SecretKeyRef("passwd", name)) is None


@pytest.mark.parametrize("cluster", ["../gpt", "gpt", "/gpt", "a b/gpt"])
def test_a_strange_namespace_is_no_path_either(tmp_path: Path, cluster: str) -> None:
    write(tmp_path, "openai/api-key", "outside")
    write(tmp_path, "inner/openai/api-key", "plain")
    assert Bench(tmp_path / "inner").value(cluster=cluster) == "plain"


def test_what_is_not_a_regular_readable_file(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    (tmp_path / "openai").mkdir()
    os.mkfifo(tmp_path / "openai/api-key")
    assert bench.value() is None
    assert bench.reason() == REASON_INVALID
    (tmp_path / "openai/api-key").unlink()
    (tmp_path / "openai/api-key").symlink_to("api-key")
    bench.later()
    assert bench.value() is None
    assert bench.reason() == REASON_MISSING


def test_a_value_shows_nowhere(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {"SPILLWAY_SECRET_OPENAI_API_KEY": "sk-visible"})
    write(tmp_path, "bad/api-key", "sk-visible\nsk-visible")
    secret = bench.resolver.resolve(CLUSTER, REF)
    bench.resolver.resolve(CLUSTER, SecretKeyRef("bad", "api-key"))
    shown = f"{secret!r} {secret} {bench.resolver.info()} {bench.resolver._found} {bench.resolver.problems()}"
    assert "visible" not in shown
    assert bench.resolver.info() == {f"{CLUSTER} openai/api-key": "found", f"{CLUSTER} bad/api-key": REASON_INVALID}


def test_secrets_that_the_snapshot_no_longer_names_are_forgotten() -> None:
    bench = Bench(None)
    bench.value()
    bench.value(SecretKeyRef("other", "key"))
    assert len(bench.resolver.problems()) == 2
    bench.resolver.retain({(CLUSTER, REF)})
    assert bench.reason() == REASON_MISSING
    bench.resolver.retain(())
    assert bench.resolver.problems() == ()
    assert bench.resolver.info() == {}
