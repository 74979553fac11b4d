"""Real processes on this machine before a real API server: operators, and proxies that connect to whoever leads.

Replicas share one discovery port, which only the leader opens: what a Service does in a cluster, a port does here.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from e2e.kubectl import Kubectl, eventually
from tests.fakes.ports import free_port

STOP_SECONDS = 10.0


@dataclass(slots=True)
class Process:
    """One child and what it says on its admin port."""

    command: list[str]
    log: Path
    admin_port: int
    environment: Mapping[str, str] = field(default_factory=dict)
    child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.child = subprocess.Popen(
                [sys.executable, "-m", *self.command], stdout=log, stderr=log, env={**os.environ, **self.environment}
            )

    def get(self, path: str) -> tuple[int, str]:
        """Status and text; status 0 while nobody answers."""
        assert self.child is None or self.child.poll() is None, f"it ended: {self.log.read_text()[-2000:]}"
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def json(self, path: str) -> Any:
        status, text = self.get(path)
        assert status == 200, (status, text)
        return json.loads(text)

    def signal(self, number: int) -> None:
        assert self.child is not None
        self.child.send_signal(number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.child is not None
        self.child.wait()

    def stop(self) -> int:
        if self.child is None or self.child.poll() is not None:
            return 0
        self.child.send_signal(signal.SIGCONT)
        self.child.terminate()
        try:
            return self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise


class Operator(Process):
    """A replica."""

    @property
    def leads(self) -> bool:
        return self.get("/leaderz")[0] == 200

    @property
    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    @property
    def epoch(self) -> int:
        return int(self.json("/info")["cluster"]["election"]["epoch"] or 0)


@dataclass(slots=True)
class Proxy(Process):
    """A gateway or sidecar."""

    port: int = 0  # where clients go

    @property
    def config(self) -> Any:
        """The snapshot in force, by kind and name; empty while there is none."""
        status, text = self.get("/config")
        resources = json.loads(text)["resources"] if status == 200 else []
        return {(each["kind"], each["name"]): each for each in resources}

    @property
    def version(self) -> str:
        status, text = self.get("/config")
        return str(json.loads(text)["version"]) if status == 200 else ""

    @property
    def connected(self) -> bool:
        return bool(self.json("/info")["config"]["connected"])


@dataclass(slots=True)
class Bench:
    """Makes the processes of one test and ends them."""

    kubectl: Kubectl
    folder: Path
    discovery_port: int = field(default_factory=free_port)
    made: list[Process] = field(default_factory=list)

    def operator(
        self, name: str = "a", *options: str, kubeconfig: Path | None = None, authentication: str = "loopback"
    ) -> Operator:
        """A replica that serves the test's namespace and has its Lease there."""
        assert self.kubectl.namespace is not None
        admin = free_port()
        command = ["spillway_operator", "--source", "kubernetes", "--host", "127.0.0.1", "--admin-port", str(admin)]
        command += ["--discovery-port", str(self.discovery_port), "--lease-namespace", self.kubectl.namespace]
        command += ["--watch-namespace", self.kubectl.namespace, "--identity", name, "--authentication", authentication]
        environment = {**self.kubectl.environment}
        if kubeconfig is not None:
            command += ["--kubeconfig", str(kubeconfig)]
        made = Operator([*command, *options], self.folder / f"operator-{name}.log", admin, environment)
        self.made.append(made)
        made.start()
        return made

    def gateway(self, name: str = "gateway-0", *options: str, url: str | None = None) -> Proxy:
        """A proxy that routes."""
        admin, port = free_port(), free_port()
        own = name.replace("/", "-")
        command = ["spillway_sidecar", "--role", "gateway", "--node-id", name, "--port", str(port), "--admin-port", str(admin)]
        command += ["--operator", url or f"http://127.0.0.1:{self.discovery_port}", "--state-dir", str(self.folder / own)]
        made = Proxy([*command, *options], self.folder / f"{own}.log", admin, port=port)
        self.made.append(made)
        made.start()
        return made

    def engines(self, count: int) -> int:
        """Simulated engines at 127.0.0.1, 127.0.0.2 ..., with a pod and a backend `fast` each belongs to; returns their port."""
        port = free_port()
        for number in range(1, count + 1):
            command = ["spillway", "sim-engine", "--host", f"127.0.0.{number}", "--port", str(port), "--decode-rate", "100"]
            made = Process(command, self.folder / f"engine-{number}.log", port)
            self.made.append(made)
            made.start()
            self.kubectl.apply(pod(f"engine-{number}", "fast"))
            run_pod(self.kubectl, f"engine-{number}", f"127.0.0.{number}")
        self.kubectl.apply(backend("fast", pods={"selector": {"matchLabels": {"app": "fast"}}, "port": port}))
        return port

    def stop(self) -> None:
        for process in reversed(self.made):
            process.stop()

    def logs(self) -> str:
        return "\n".join(f"--- {process.log.name}\n{process.log.read_text()[-6000:]}" for process in self.made)


@contextlib.contextmanager
def bench(kubectl: Kubectl, folder: Path) -> Iterator[Bench]:
    made = Bench(kubectl, folder)
    try:
        yield made
    except BaseException:
        print(made.logs())
        raise
    finally:
        made.stop()


def backend(name: str = "fast", **spec: Any) -> dict[str, Any]:
    place = {} if "service" in spec else {"pods": {"selector": {"matchLabels": {"app": name}}, "port": 8000}}
    body = {"provider": "VLLM", "model": f"models/{name}", **place, **spec}
    return {"apiVersion": "spillway.dev/v1alpha1", "kind": "ModelBackend", "metadata": {"name": name}, "spec": body}


def route(name: str = "chat", *backends: str, models: list[str] | None = None) -> dict[str, Any]:
    rule = {"name": "all", "backendRefs": [{"name": each} for each in backends or ("fast",)]}
    spec = {"models": models or [name], "rules": [rule]}
    return {"apiVersion": "spillway.dev/v1alpha1", "kind": "ModelRoute", "metadata": {"name": name}, "spec": spec}


def pod(name: str, app: str, *, sidecar_port: int | None = None) -> dict[str, Any]:
    """A pod as an engine's would be; the image is never pulled on this tier."""
    ports = [] if sidecar_port is None else [{"name": "spillway", "containerPort": sidecar_port}]
    proxy = {"name": "spillway-proxy", "image": "spillway.invalid/x", "restartPolicy": "Always", "ports": ports}
    spec: dict[str, Any] = {"containers": [{"name": "engine", "image": "engine.invalid/x"}]}
    if ports:
        spec["initContainers"] = [proxy]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}}, "spec": spec}


def run_pod(kubectl: Kubectl, name: str, ip: str, *, ready: bool = True) -> None:
    """What a kubelet would say of the pod."""
    status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": str(ready)}]}
    kubectl("patch", "pod", name, "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}")


def condition(kubectl: Kubectl, kind: str, name: str, wanted: str) -> dict[str, Any]:
    """A condition of an object; fails while it is not there."""
    for each in kubectl.get(kind, name).get("status", {}).get("conditions", []):
        if each["type"] == wanted:
            return dict(each)
    raise AssertionError(f"{kind} {name} has no condition {wanted}")


def events(kubectl: Kubectl, reason: str) -> list[dict[str, Any]]:
    return [each for each in kubectl.get("events.events.k8s.io")["items"] if each["reason"] == reason]


def soon(check: Callable[[], Any], seconds: float = 15.0) -> Any:
    return eventually(check, seconds=seconds, every=0.05)
