"""The command line: options -> settings. Each option's default comes from `SPILLWAY_<OPTION>`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spillway_operator.policies.hosts import LOOPBACK, AllowList
from spillway_operator.settings import ClusterSettings, InjectionSettings, ListenSettings, Settings, SourceSettings, StatusSettings

_LIST_SEPARATOR = ","
_ANY_ADDRESS = "0.0.0.0"


def _port(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is no port: give one between 0 and 65535")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid float value: {text!r}") from None
    if not 0 < number < 86_400:
        raise argparse.ArgumentTypeError(f"{text} is no interval: give seconds above 0")
    return number


def _parser(environment: Mapping[str, str]) -> argparse.ArgumentParser:
    defaults = Settings()
    parser = argparse.ArgumentParser(
        prog="python -m spillway_operator",
        description="The operator core: reads resources, serves snapshots to proxies, takes in load, sets weights, tells status.",
        epilog="Every option is also an environment variable: --admin-port is SPILLWAY_ADMIN_PORT; lists are separated by commas.",
    )
    group: Any = parser

    def option(name: str, text: str, **kwargs: Any) -> None:
        value = environment.get("SPILLWAY_" + name.upper().replace("-", "_"))
        if value and "action" not in kwargs:
            kwargs["default"] = value
        group.add_argument(f"--{name}", help=text, **kwargs)

    option("source", "where resources come from (default: files)", choices=("files", "kubernetes"), default=defaults.source.kind)
    option("allow-host", "host, address or network that external backends may reach by plain http; with files, loopback may",
           action="append", metavar="HOST")  # fmt: skip
    option("host", "address to listen on (default: 127.0.0.1 with files, every one with kubernetes)", default=None)
    option("admin-port", "port of /healthz, /metrics, /info, /config and /api/v1 (default: %(default)s)", type=_port,
           default=defaults.listen.admin_port)  # fmt: skip
    option("discovery-port", "port of the stream to proxies (default: %(default)s)", type=_port,
           default=defaults.listen.discovery_port)  # fmt: skip
    option("status-interval", "seconds between two writes of load figures of an object (default: 1 with files, 10 with kubernetes)",
           type=_seconds, default=None)  # fmt: skip
    option("log-level", "debug, info, warning or error (default: %(default)s)", choices=("debug", "info", "warning", "error"),
           default=defaults.log_level)  # fmt: skip
    group = parser.add_argument_group("with --source files")
    option("path", "a folder of resource files, or one file; may be given several times", action="append", metavar="PATH")
    option("endpoints-file", "JSON file with the endpoints of pods and service backends, watched", type=Path, metavar="FILE")
    option("targets-file", "JSON file that says how many replicas backends have, watched", type=Path, metavar="FILE")
    option("scale-file", "JSON file to write how many they should have", type=Path, metavar="FILE")
    group = parser.add_argument_group("with --source kubernetes")
    cluster = defaults.cluster
    option(
        "kubeconfig", "kubeconfig file (default: the pod's service account, else where kubectl looks)", type=Path, metavar="FILE"
    )
    option("context", "context of the kubeconfig (default: its current one)", metavar="NAME")
    option("watch-namespace", "namespace to serve; may be given several times (default: all)", action="append", metavar="NAME")
    option("pod-selector", "labels of the pods to look at, which keeps memory small in a large cluster (default: all pods)",
           default="", metavar="LABELS")  # fmt: skip
    option("lease-namespace", "namespace of the Lease by which one replica leads (default: %(default)s)",
           default=cluster.lease_namespace, metavar="NAME")  # fmt: skip
    option("lease-name", "its name (default: %(default)s)", default=cluster.lease_name, metavar="NAME")
    option(
        "identity",
        "what this replica is called in the Lease (default: the host's name and some digits)",
        default="",
        metavar="NAME",
    )
    option("gateway-service-account", "NAMESPACE/NAME of gateways, which are told of all namespaces; may be given several times",
           action="append", metavar="ACCOUNT")  # fmt: skip
    option("authentication", "how proxies show who they are: the token of their pod, or that they are on this machine"
           " (default: %(default)s)", choices=("token", "loopback"), default=cluster.authentication)  # fmt: skip
    option("tls-cert-file", "PEM certificate of the discovery port, followed when it changes", type=Path, metavar="FILE")
    option("tls-key-file", "its key", type=Path, metavar="FILE")
    option("external-metrics-port", "port of the external metrics API (default: it is not served)", type=_port, default=None)
    option("injection-config", "JSON file that says what sidecars are made from; with it the webhook is served", type=Path,
           metavar="FILE")  # fmt: skip
    option("operator-ca-file", "PEM file of the authority that sidecars trust for the discovery port", type=Path, metavar="FILE")
    option("webhook-port", "port of the webhook (default: %(default)s)", type=_port, default=defaults.injection.port)
    return parser


def _listed(given: Sequence[str] | None, environment: Mapping[str, str], variable: str) -> tuple[str, ...]:
    if given is not None:
        return tuple(given)
    return tuple(part for part in environment.get(variable, "").split(_LIST_SEPARATOR) if part)


def _accounts(parser: argparse.ArgumentParser, texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    accounts = []
    for text in texts:
        namespace, slash, name = text.partition("/")
        if not (namespace and slash and name) or "/" in name:
            parser.error(f"--gateway-service-account: {text!r} is not NAMESPACE/NAME")
        accounts.append((namespace, name))
    return tuple(accounts)


def parse(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Settings from options. Exits with a message for what is wrong."""
    parser = _parser(environment)
    options = parser.parse_args(arguments)
    in_cluster = options.source == "kubernetes"
    paths = _listed(options.path, environment, "SPILLWAY_PATH")
    allowed = _listed(options.allow_host, environment, "SPILLWAY_ALLOW_HOST")
    if not paths and not in_cluster:
        parser.error("--path is missing: name a folder or file with resources")
    if (options.tls_cert_file is None) != (options.tls_key_file is None):
        parser.error("--tls-cert-file and --tls-key-file go together: give both, or neither")
    if options.external_metrics_port is not None and options.tls_cert_file is None:
        parser.error("--external-metrics-port needs --tls-cert-file and --tls-key-file: the API server speaks TLS only")
    try:
        AllowList.of(allowed)
    except ValueError as error:
        parser.error(f"--allow-host: {error}")
    cluster = ClusterSettings(
        kubeconfig=options.kubeconfig,
        context=options.context,
        namespaces=_listed(options.watch_namespace, environment, "SPILLWAY_WATCH_NAMESPACE"),
        pod_selector=options.pod_selector,
        lease_namespace=options.lease_namespace,
        lease_name=options.lease_name,
        identity=options.identity,
        gateways=_accounts(parser, _listed(options.gateway_service_account, environment, "SPILLWAY_GATEWAY_SERVICE_ACCOUNT")),
        authentication=options.authentication,
        certificate=options.tls_cert_file,
        key=options.tls_key_file,
        external_metrics_port=options.external_metrics_port,
    )
    figures = cluster.figures_interval_seconds if in_cluster else StatusSettings().figures_interval_seconds
    return Settings(
        source=SourceSettings(
            kind=options.source,
            paths=tuple(Path(path) for path in paths),
            endpoints_file=options.endpoints_file,
            targets_file=options.targets_file,
            scale_file=options.scale_file,
            # Loopback of a laptop is the model server beside us; loopback of a gateway's pod is the gateway.
            allowed_hosts=allowed if in_cluster else (*LOOPBACK, *allowed),
        ),
        cluster=cluster,
        injection=InjectionSettings(
            config_file=options.injection_config if in_cluster else None,
            ca_file=options.operator_ca_file,
            port=options.webhook_port,
        ),
        listen=ListenSettings(
            host=options.host or (_ANY_ADDRESS if in_cluster else ListenSettings().host),
            admin_port=options.admin_port,
            discovery_port=options.discovery_port,
        ),
        status=StatusSettings(figures_interval_seconds=options.status_interval or figures),
        log_level=options.log_level,
    )
