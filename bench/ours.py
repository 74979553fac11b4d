"""Our proxy as the bench runs it: the real gateway, told what to do by the real operator core from YAML in a folder.

The operator core stands on the other core with load and engine: it takes no part in a request. A backend has the two engines as its
endpoints, so that a request is classified, matched, scored by load and relayed, as peers choose the less busy of two. Two more
backends show the sidecar: `guarded` has its inbound listeners as endpoints, `alone` has one that the load goes to directly.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass

from bench import machine
from bench.peers import ENGINE_PORTS, OUT, ROOT, CannotHaveError, Peer

FOLDER = OUT / "ours"
COMPILED = OUT / "compiled"
MAKER = ROOT / "images/compiled.py"
DISCOVERY_PORT, OPERATOR_ADMIN_PORT = 18298, 18297
FIRST_PORT = 18210

BACKEND = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec:
  provider: VLLM
  model: mock
  {where}
  limits: {{maxConcurrency: 10000}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: {name}}}
spec:
  models: [{model}]
  rules: [{{name: all, backendRefs: [{{name: {name}}}]}}]
"""
SERVICE = "service: {name: engines, port: 80}"
PODS = "pods: {selector: {matchLabels: {app: mock}}, port: 8000}"
RESOURCES = "---\n".join(
    BACKEND.format(name=name, where=where, model=model)
    for name, where, model in (("engines", SERVICE, "mock"), ("guarded", PODS, "guarded"), ("alone", PODS, "alone"))
)
INBOUND_PORTS = (18241, 18242, 18243)  # the last one's backend is `alone`


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
    engines = [{"id": f"engine-{port}", "host": "127.0.0.1", "port": port, "inbound": False} for port in ENGINE_PORTS]
    guards = [{"id": f"guard-{port}", "host": "127.0.0.1", "port": port, "inbound": True} for port in INBOUND_PORTS]
    endpoints = {"default/engines": engines, "default/guarded": guards[:-1], "default/alone": guards[-1:]}
    (FOLDER / "endpoints.json").write_text(json.dumps({"endpoints": endpoints}))
    command = [sys.executable, "-m", "spillway_operator", "--source", "files", "--path", str(resources)]
    command += ["--endpoints-file", str(FOLDER / "endpoints.json")]
    command += ["--admin-port", str(OPERATOR_ADMIN_PORT), "--discovery-port", str(DISCOVERY_PORT)]
    return machine.start(command, core, log=OUT / "log.operator")


def gateway(name: str = "ours", options: tuple[str, ...] = (), port: int = FIRST_PORT, model: str = "mock") -> Peer:
    """Our gateway on `port`, in the form that its image has where that could be made."""
    return Peer(name, port, (*_proxy("gateway", f"bench-{port}", port), *options), model=model, env=_form())


def interpreted(name: str = "ours, not compiled", options: tuple[str, ...] = ()) -> Peer:
    """Our gateway as it stands in the sources, which is what `make run` runs."""
    return dataclasses.replace(gateway(name, options, FIRST_PORT + 10), env={})


def _form() -> dict[str, str]:
    found = [str(COMPILED), os.environ.get("PYTHONPATH")] if COMPILED.exists() else []
    return {"PYTHONPATH": os.pathsep.join(filter(None, found))} if found else {}


def compiled() -> None:
    """Makes the form that the image has, unless it is there of these sources. Raises CannotHaveError where it cannot be made."""
    sources = hashlib.sha256(sys.version.encode())
    for path in (
        MAKER,
        *sorted(path for part in ("spillway_sidecar", "spillway_wire") for path in (ROOT / "sidecar" / part).rglob("*.py")),
    ):
        sources.update(path.read_bytes())
    made_of = COMPILED / "made-of"
    if made_of.exists() and made_of.read_text() == sources.hexdigest():
        return
    made = subprocess.run([sys.executable, MAKER, COMPILED], capture_output=True, text=True, check=False)
    if made.returncode:
        raise CannotHaveError(
            f"the data path could not be compiled, so the sources run: {(made.stderr.strip().splitlines() or ['?'])[-1]}"
        )
    made_of.write_text(sources.hexdigest())


def sidecar(name: str, place: int) -> Peer:
    """A sidecar before an engine, asked at its inbound listener."""
    port = INBOUND_PORTS[place]
    engine = f"http://127.0.0.1:{ENGINE_PORTS[place % len(ENGINE_PORTS)]}"
    options = ("--inbound-port", str(port), "--engine", engine)
    return Peer(name, port, (*_proxy("sidecar", f"guard-{port}", port + 10), *options), model="alone", env=_form())


def _proxy(role: str, node: str, port: int) -> tuple[str, ...]:
    state = FOLDER / f"state-{port}"
    state.mkdir(parents=True, exist_ok=True)
    command = (sys.executable, "-m", "spillway_sidecar", "--role", role, "--node-id", node, "--port", str(port))
    admin = ("--admin-port", str(port + 20), "--state-dir", str(state))
    return (*command, "--operator", f"http://127.0.0.1:{DISCOVERY_PORT}", *admin)
