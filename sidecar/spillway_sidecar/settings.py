"""What a proxy process is told at start: command line, else `SPILLWAY_*` environment, else the default with its reason."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from spillway_sidecar.proxy.compat import COMPAT
from spillway_sidecar.proxy.listener import MAX_CONNECTIONS, ClientLimits
from spillway_wire.names import Role


@dataclass(frozen=True, slots=True)
class Settings:
    """One proxy's settings."""

    role: Role
    node_id: str
    operator: str | None  # None: serves from the last good snapshot alone
    operator_ca_file: Path | None
    operator_token_file: Path | None
    host: str
    port: int
    admin_host: str
    admin_port: int
    state_dir: Path | None
    namespace: str
    pod: str
    inbound_port: int
    engine_host: str
    engine_port: int
    engine_health: str | None  # asked before a snapshot says how; None: the engine passes for up until then
    secrets_dir: Path | None
    ca_file: Path | None
    access_log: str | None
    decisions: int
    metrics: bool
    client_limits: ClientLimits
    drain_seconds: float
    dcgm_url: str | None
    uvloop: bool


def parser(environ: Mapping[str, str]) -> argparse.ArgumentParser:
    """The command line. Each option's default is `SPILLWAY_<OPTION>` where that is set."""

    def env(name: str, default: str | None) -> str | None:
        return environ.get("SPILLWAY_" + name.upper().replace("-", "_"), default)

    p = argparse.ArgumentParser(
        prog="spillway-sidecar",
        description="Routes model traffic to endpoints and, as a sidecar, guards the engine in its own pod.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )

    def add(name: str, default: str | None, text: str, **more: object) -> None:
        p.add_argument(f"--{name}", default=env(name, default), help=text, **more)  # type: ignore[arg-type]

    add(
        "role",
        "gateway",
        "route listener only (gateway), or an inbound listener before an engine too (sidecar)",
        choices=[r.value for r in Role],
    )
    add("node-id", "gateway-0", "unique among live proxies; a sidecar's is the id of its endpoint")
    add("operator", None, "URL of the operator's discovery port, e.g. http://127.0.0.1:8083")
    add("operator-ca-file", None, "PEM file of the authority that the operator's certificate is from, read for each connection")
    add("operator-token-file", None, "file of the bearer token that the operator asks for, read for each connection")
    add("host", "127.0.0.1", "address of the route and inbound listeners")
    add("port", "8080", "port of the route listener", type=int)
    add("admin-host", "127.0.0.1", "address of the admin listener")
    add("admin-port", "8082", "port of the admin listener", type=int)
    add("state-dir", None, "folder for the last good snapshot; none is kept without it")
    add("namespace", "", "namespace of the pod; empty takes the resources of all")
    add("pod", "", "name of the pod")
    add("inbound-port", "8090", "port of the inbound listener (sidecar)", type=int)
    add("engine", "http://127.0.0.1:8000", "the engine behind the inbound listener (sidecar)")
    add("engine-health", None, "path at which the engine is asked for its health until a snapshot says how (sidecar)")
    add("secrets-dir", None, "folder of secrets: NAMESPACE/NAME/KEY or NAME/KEY")
    add("ca-file", None, "PEM file of further certificate authorities for external servers")
    add("access-log", None, "append one JSON line a request to this file; - is standard output")
    add("decisions", "1024", "decision records kept for /explain; 0 keeps none", type=int)
    add("max-body-bytes", str(10 * 1024 * 1024), "largest request body", type=int)
    add(
        "max-connections",
        str(MAX_CONNECTIONS),
        "client connections of one listener; fewer where there are not the descriptors",
        type=int,
    )
    add("compat", "", "comma-separated: " + "; ".join(f"{name}: {text}" for name, text in COMPAT.items()), type=_compat)
    add("drain-seconds", "30", "longest wait for requests under way after SIGTERM", type=float)
    add("dcgm-url", None, "metrics URL of a DCGM exporter, where NVML sees no device")
    p.add_argument("--no-metrics", action="store_true", default=bool(env("no-metrics", "")), help="serve no metrics")
    p.add_argument("--no-uvloop", action="store_true", default=bool(env("no-uvloop", "")), help="use asyncio's own event loop")
    return p


def _compat(text: str) -> frozenset[str]:
    names = frozenset(filter(None, (name.strip() for name in text.split(","))))
    if unknown := names - COMPAT.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not among {', '.join(COMPAT)}")
    return names


def parse(argv: list[str] | None, environ: Mapping[str, str]) -> Settings:
    """The settings, or a usage error that ends the process with status 2."""
    p = parser(environ)
    args = p.parse_args(argv)
    scheme, _, rest = args.engine.partition("://")
    engine_host, _, engine_port = rest.rstrip("/").rpartition(":")
    if scheme != "http" or not engine_host or not engine_port.isdigit():
        p.error(f"--engine must look like http://127.0.0.1:8000, not {args.engine!r}")
    return Settings(
        role=Role(args.role),
        node_id=args.node_id,
        operator=args.operator or None,
        operator_ca_file=Path(args.operator_ca_file) if args.operator_ca_file else None,
        operator_token_file=Path(args.operator_token_file) if args.operator_token_file else None,
        host=args.host,
        port=args.port,
        admin_host=args.admin_host,
        admin_port=args.admin_port,
        state_dir=Path(args.state_dir) if args.state_dir else None,
        namespace=args.namespace,
        pod=args.pod,
        inbound_port=args.inbound_port,
        engine_host=engine_host.strip("[]"),
        engine_port=int(engine_port),
        engine_health=args.engine_health or None,
        secrets_dir=Path(args.secrets_dir) if args.secrets_dir else None,
        ca_file=Path(args.ca_file) if args.ca_file else None,
        access_log=args.access_log or None,
        decisions=args.decisions,
        metrics=not args.no_metrics,
        client_limits=ClientLimits(
            max_body_bytes=args.max_body_bytes, max_connections=args.max_connections, compat=frozenset(args.compat)
        ),
        drain_seconds=args.drain_seconds,
        dcgm_url=args.dcgm_url or None,
        uvloop=not args.no_uvloop,
    )
