"""Our proxy as the bench runs it: the real gateway, told what to do by the real operator core from YAML in a folder.

The operator core stands on the other core with load and engine: it takes no part in a request. A backend has the two engines as its
endpoints, so that a request is classified, matched, scored by load and relayed, as peers choose the less busy of two.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass

from bench import machine
from bench.peers import ENGINE_PORTS, OUT, Peer

FOLDER = OUT / "ours"
DISCOVERY_PORT, OPERATOR_ADMIN_PORT = 18283, 18281
FIRST_PORT = 18210

RESOURCES = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: engines}
spec:
  provider: OpenAICompatible
  model: mock
  service: {name: engines, port: 80}
  limits: {maxConcurrency: 10000}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: mock}
spec:
  models: [mock]
  rules: [{name: all, backendRefs: [{name: engines}]}]
"""


@dataclass(frozen=True, slots=True)
class Feature:
    """One way to run our proxy: what the table calls it and the options that make it so."""

    name: str
    options: tuple[str, ...] = ()


# The first is the product's default, and the one that is compared with peers.
FEATURES = (
    Feature("every default on"),
    Feature("without metrics", ("--no-metrics",)),
    Feature("without decision records", ("--decisions", "0")),
    Feature("with the access log", ("--access-log", str(OUT / "access.log"))),
    Feature("without metrics and decision records", ("--no-metrics", "--decisions", "0")),
    Feature("asyncio's own event loop", ("--no-uvloop",)),
)


def supported() -> tuple[list[Feature], dict[str, str]]:
    """The features whose options our proxy has, and why the others are not in the table."""
    answer = subprocess.run([sys.executable, "-m", "spillway_sidecar", "--help"], capture_output=True, text=True, check=False)
    missing = {}
    for feature in FEATURES:
        unknown = [option for option in feature.options if option.startswith("--") and option not in answer.stdout]
        if unknown:
            missing[feature.name] = f"no option {', '.join(unknown)}"
    return [feature for feature in FEATURES if feature.name not in missing], missing


def operator(core: int) -> subprocess.Popen[str]:
    """The operator core over a folder of its own."""
    resources = FOLDER / "resources"
    resources.mkdir(parents=True, exist_ok=True)
    (resources / "bench.yaml").write_text(RESOURCES)
    endpoints = [{"id": f"engine-{port}", "host": "127.0.0.1", "port": port, "inbound": False} for port in ENGINE_PORTS]
    (FOLDER / "endpoints.json").write_text(json.dumps({"endpoints": {"default/engines": endpoints}}))
    command = [sys.executable, "-m", "spillway_operator", "--source", "files", "--path", str(resources)]
    command += ["--endpoints-file", str(FOLDER / "endpoints.json")]
    command += ["--admin-port", str(OPERATOR_ADMIN_PORT), "--discovery-port", str(DISCOVERY_PORT)]
    return machine.start(command, core, log=OUT / "log.operator")


def gateway(name: str = "ours", options: tuple[str, ...] = (), port: int = FIRST_PORT) -> Peer:
    """Our gateway on `port`."""
    state = FOLDER / f"state-{port}"
    state.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "spillway_sidecar", "--role", "gateway", "--node-id", f"bench-{port}"]
    command += ["--operator", f"http://127.0.0.1:{DISCOVERY_PORT}", "--port", str(port), "--admin-port", str(port + 20)]
    return Peer(name, port, (*command, "--state-dir", str(state), *options))
