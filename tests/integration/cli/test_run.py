"""`spillway run` with everything real: the quick start serves, heals, follows its files and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
MESSAGES = [{"role": "user", "content": "Hello"}]


class Run:
    """A `spillway run` process; what it says is collected as it comes."""

    def __init__(self, state_dir: Path, *arguments: str, **environ: str) -> None:
        self.state_dir = state_dir
        command = [sys.executable, "-m", "spillway", "run", *arguments, "--state-dir", str(state_dir)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **environ}
        )
        self.output = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def address(self, pattern: str) -> str:
        """The first group of a pattern in the output, once it is there."""
        until(lambda: re.search(pattern, self.output) is not None, f"{pattern!r} in the output", lambda: self.output)
        found = re.search(pattern, self.output)
        assert found is not None
        return found[1]

    @property
    def api(self) -> str:
        return self.address(r"API +(http://\S+)/v1")

    @property
    def admin(self) -> str:
        return self.address(r"operator (http://[\d.:]+)")

    @property
    def gateway_admin(self) -> str:
        return self.address(r"gateway (http://[\d.:]+)")

    def items(self, kind: str) -> list[dict[str, Any]]:
        with urllib.request.urlopen(f"{self.admin}/api/v1/{kind}", timeout=5) as reply:
            items: list[dict[str, Any]] = json.load(reply)["items"]
        return items

    def ready(self) -> dict[str, str]:
        """Endpoints of each backend as `ready/all`."""
        with contextlib.suppress(urllib.error.URLError, ConnectionError):
            return {
                item["metadata"]["name"]: item["status"]["summary"].get("endpoints", "") for item in self.items("modelbackends")
            }
        return {}

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        self.process.send_signal(number)
        code = self.process.wait(timeout=30)
        self._reader.join(timeout=5)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code

    def children(self) -> list[int]:
        """Processes that have this run's folder on their command line, or are engines that it started."""
        found = []
        for folder in Path("/proc").iterdir():
            with contextlib.suppress(OSError, ValueError):
                if folder.name.isdigit() and int(folder.name) != self.process.pid:
                    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                    if parent == self.process.pid or str(self.state_dir) in (folder / "cmdline").read_text():
                        found.append(int(folder.name))
        return found


def until(condition: Callable[[], bool], what: str, more: Callable[[], object] = str, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{more()}"
        time.sleep(0.05)


def logs(run: Run) -> str:
    return run.output + "".join(f"== {path.name}\n{path.read_text()[-1500:]}\n" for path in (run.state_dir / "logs").glob("*.log"))


@contextlib.contextmanager
def running(state_dir: Path, *arguments: str, **environ: str) -> Iterator[Run]:
    run = Run(state_dir, *arguments, "--port", "0", "--admin-port", "0", **environ)
    try:
        yield run
    finally:
        if run.process.poll() is None:
            children = run.children()
            run.stop()
            assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    folder = tmp_path_factory.mktemp("quickstart")
    shutil.copytree(EXAMPLES / "quickstart", folder / "yaml")
    with running(folder / "state", str(folder / "yaml")) as run:
        until(lambda: run.ready() == {"fast": "2/2", "slow": "1/1"}, "all endpoints ready", lambda: logs(run))
        yield run


@pytest.fixture(scope="module")
def client(quickstart: Run) -> Iterator[OpenAI]:
    with OpenAI(base_url=quickstart.api + "/v1", api_key="none", max_retries=0, timeout=20) as client:
        yield client


def test_the_quick_start_serves_chat_streams_completions_embeddings_and_models(client: OpenAI):
    chat = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=5)
    assert chat.usage is not None
    assert chat.usage.completion_tokens == 5
    stream = client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == chat.choices[0].message.content
    assert client.completions.create(model="chat", prompt="Once", max_tokens=5).choices[0].text
    assert len(client.embeddings.create(model="chat", input="Once").data[0].embedding) == 64
    assert [model.id for model in client.models.list()] == ["chat"]


def test_the_line_that_it_prints_to_try_works(quickstart: Run):
    command = quickstart.address(r"try +(curl -N [^\n]*\\\n[^\n]*\n)")
    answer = subprocess.run(["bash", "-c", f"{command.strip()} -sS --max-time 20"], capture_output=True, text=True, check=True)
    assert answer.stdout.endswith("data: [DONE]\n\n")


def test_get_shows_what_runs(quickstart: Run, client: OpenAI):
    client.models.list()
    shown = subprocess.run(
        [sys.executable, "-m", "spillway", "get", "routes", "--admin", quickstart.admin], capture_output=True, text=True, check=True
    )
    header, row = shown.stdout.splitlines()
    assert header.split()[:5] == ["NAME", "MODELS", "READY", "BACKENDS", "SYNCED"]
    assert row.split()[:5] == ["chat", "chat", "True", "2/2", "4/4"]
    assert shown.stderr == ""


def test_explain_tells_of_a_request(quickstart: Run, client: OpenAI):
    reply = client.chat.completions.with_raw_response.create(model="chat", messages=MESSAGES, max_tokens=1)
    request_id = reply.headers["x-request-id"]
    shown = subprocess.run(
        [sys.executable, "-m", "spillway", "explain", request_id, "--admin", quickstart.gateway_admin],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"request    {request_id}" in shown.stdout
    assert "matched    route default/chat, rule all" in shown.stdout
    assert "status 200" in shown.stdout


def test_a_killed_engine_comes_back_and_is_told(quickstart: Run):
    log = (quickstart.state_dir / "logs" / "engine-slow-0.log").read_text()
    pid = int(re.findall(r"--- pid (\d+)", log)[-1])
    os.kill(pid, signal.SIGKILL)
    told = "engine slow-0 was ended by SIGKILL"
    until(lambda: told in quickstart.output, "the death told", lambda: quickstart.output)
    path = quickstart.state_dir / "logs" / "engine-slow-0.log"
    until(lambda: path.read_text().count("--- pid") == 2, "started again", path.read_text)


def test_engines_come_and_go_as_spillway_yaml_says_while_it_runs(quickstart: Run):
    path = Path(quickstart.state_dir.parent / "yaml" / "spillway.yaml")
    before = path.read_text()
    path.write_text(before.replace("replicas: 1", "replicas: 2"))
    until(lambda: quickstart.ready().get("slow") == "2/2", "another endpoint", lambda: logs(quickstart))
    path.write_text(before.replace("replicas: 1", "replicas: one"))
    until(lambda: re.search(r"spillway.yaml:\d+: simulate.slow.replicas: ", quickstart.output) is not None, "the mistake told")
    assert quickstart.ready()["slow"] == "2/2"
    path.write_text(before)
    until(lambda: "the files are good again" in quickstart.output, "relief", lambda: quickstart.output)
    until(lambda: quickstart.ready().get("slow") == "1/1", "one endpoint less", lambda: logs(quickstart))


def test_a_wrong_document_is_told_as_validate_does_and_the_good_ones_run(tmp_path: Path):
    shutil.copytree(EXAMPLES / "quickstart", tmp_path / "yaml")
    (tmp_path / "yaml" / "more.yaml").write_text(
        "apiVersion: spillway.dev/v1alpha1\nkind: ModelRoute\nmetadata: {name: other}\nspec:\n  modles: [other]\n"
    )
    validated = subprocess.run(
        [sys.executable, "-m", "spillway", "validate", str(tmp_path / "yaml")], capture_output=True, text=True, check=False
    )
    assert validated.returncode == 1
    with running(
        tmp_path / "state", str(tmp_path / "yaml"), "--simulate", "slow=0", "--simulate", "fast=1", "--simulate", "no=0"
    ) as run:
        until(lambda: run.ready().get("fast") == "1/1", "the good ones", lambda: logs(run))
        for line in validated.stdout.splitlines():
            until(lambda line=line: line in run.output, f"{line!r} told", lambda: run.output)  # type: ignore[misc]
        assert "there is no ModelBackend default/no" in run.output
        with urllib.request.urlopen(run.api + "/v1/models", timeout=5) as reply:
            assert [model["id"] for model in json.load(reply)["data"]] == ["chat"]


def test_the_laptop_example_serves_from_the_local_server_without_a_key(tmp_path: Path):
    with local_server() as port:
        (tmp_path / "laptop.yaml").write_text((EXAMPLES / "laptop" / "laptop.yaml").read_text().replace("11434", port))
        with running(tmp_path / "state", str(tmp_path / "laptop.yaml"), SPILLWAY_SECRET_UNRELATED_KEY="x") as run:
            with OpenAI(base_url=run.api + "/v1", api_key="none", max_retries=3, timeout=20) as client:
                chat = client.chat.completions.create(model="assistant", messages=MESSAGES, max_tokens=3)
                assert chat.choices[0].message.content

            def reasons() -> dict[str, list[str]]:
                return {
                    item["metadata"]["name"]: [c["reason"] for c in item["status"]["conditions"] if c["type"] == "Ready"]
                    for item in run.items("modelbackends")
                }

            until(lambda: reasons().get("provider") == ["SecretMissing"], "the missing key told", reasons)


def test_the_rules_example_sends_each_request_where_its_rule_says(tmp_path: Path):
    with running(tmp_path / "state", str(EXAMPLES / "rules")) as run:
        until(lambda: run.ready() == {"large": "1/1", "small": "1/1", "spare": "1/1"}, "all endpoints ready", lambda: logs(run))

        def rule_and_backend(path: str, headers: dict[str, str], **body: object) -> tuple[str, str]:
            request = urllib.request.Request(
                f"{run.api}/v1/{path}",
                json.dumps({"model": "support", "max_tokens": 1, **body}).encode(),
                {"content-type": "application/json", **headers},
            )
            with urllib.request.urlopen(request, timeout=10) as reply:
                request_id = reply.headers["x-request-id"]
            with urllib.request.urlopen(f"{run.gateway_admin}/explain/{request_id}", timeout=5) as reply:
                record = json.load(reply)
            return record["rule"], record["attempts"][-1]["backend"]

        premium = {"x-tier": "premium"}
        long = [{"role": "user", "content": "word " * 5000}]
        assert rule_and_backend("chat/completions", premium, messages=MESSAGES) == ("premium", "default/large")
        assert rule_and_backend("chat/completions", {}, messages=MESSAGES) == ("rest", "default/small")
        assert rule_and_backend("chat/completions", {}, messages=long)[0] == "long-prompts"
        assert rule_and_backend("embeddings", premium, input="x") == ("embeddings", "default/small")


@contextlib.contextmanager
def local_server() -> Iterator[str]:
    """The port of a model server that knows one model name only."""
    command = [sys.executable, "-m", "spillway", "sim-engine", "--port", "0", "--model", "llama3.2", "--strict-model"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as engine:
        try:
            assert engine.stdout is not None
            port = re.search(r"127\.0\.0\.1:(\d+)", engine.stdout.readline())
            assert port is not None
            yield port[1]
        finally:
            engine.terminate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_run_that_ends_leaves_no_process_behind(tmp_path: Path, number: signal.Signals):
    with running(tmp_path / "state", str(EXAMPLES / "quickstart"), "--simulate", "fast=1", "--simulate", "slow=0") as run:
        until(lambda: bool(run.ready()), "an operator", lambda: logs(run))
        children = run.children()
        assert len(children) == 4  # operator, gateway, engine, sidecar
        began = time.monotonic()
        code = run.stop(number)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 0)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in children), "all gone", seconds=2.0)
        assert time.monotonic() - began < 10
    assert ("stopped" in run.output) == (number != signal.SIGKILL)


def fails(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "spillway", "run", *arguments], capture_output=True, text=True, check=False, timeout=20
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_taken_port_is_one_clear_line(tmp_path: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert fails(str(EXAMPLES / "quickstart"), "--port", port, "--state-dir", str(tmp_path)) == (
            f"spillway run: port {port} is taken; stop what listens there, or choose another with --port\n"
        )


def test_a_path_that_is_not_there_is_one_clear_line(tmp_path: Path):
    assert fails(str(tmp_path / "no"), "--state-dir", str(tmp_path)) == f"spillway run: {tmp_path}/no: no such file or folder\n"


def test_a_state_folder_in_use_is_one_clear_line(quickstart: Run):
    said = fails(str(EXAMPLES / "quickstart"), "--port", "0", "--admin-port", "0", "--state-dir", str(quickstart.state_dir))
    assert said == f"spillway run: another run uses the state folder {quickstart.state_dir}; choose another with --state-dir\n"
