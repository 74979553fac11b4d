"""Options and environment become settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from spillway_operator.__main__ import parse
from spillway_operator.policies.hosts import LOOPBACK


def test_defaults_are_those_of_a_machine_of_ones_own():
    settings = parse(["--path", "d"], {})
    assert settings.source.paths == (Path("d"),)
    assert settings.source.endpoints_file is None
    assert settings.source.allowed_hosts == LOOPBACK
    assert (settings.listen.host, settings.listen.admin_port, settings.listen.discovery_port) == ("127.0.0.1", 8081, 8083)
    assert settings.status.figures_interval_seconds == 1.0


def test_options_are_taken():
    settings = parse(
        [
            "--source", "files", "--path", "a", "--path", "b", "--endpoints-file", "e.json", "--admin-port", "1",
            "--discovery-port", "2", "--host", "0.0.0.0", "--allow-host", "10.0.0.0/8", "--log-level", "debug",
            "--status-interval", "2.5",
        ],
        {},
    )  # fmt: skip
    assert settings.source.paths == (Path("a"), Path("b"))
    assert settings.source.endpoints_file == Path("e.json")
    assert settings.source.allowed_hosts == (*LOOPBACK, "10.0.0.0/8")
    assert (settings.listen.host, settings.listen.admin_port, settings.listen.discovery_port) == ("0.0.0.0", 1, 2)
    assert (settings.log_level, settings.status.figures_interval_seconds) == ("debug", 2.5)


def test_every_option_is_an_environment_variable():
    settings = parse(
        [],
        {
            "SPILLWAY_PATH": "a,b",
            "SPILLWAY_ENDPOINTS_FILE": "e.json",
            "SPILLWAY_ADMIN_PORT": "1",
            "SPILLWAY_ALLOW_HOST": "h1,h2",
            "SPILLWAY_STATUS_INTERVAL": "3",
        },
    )
    assert settings.source.paths == (Path("a"), Path("b"))
    assert settings.source.endpoints_file == Path("e.json")
    assert settings.listen.admin_port == 1
    assert settings.source.allowed_hosts[-2:] == ("h1", "h2")
    assert settings.status.figures_interval_seconds == 3


def test_an_option_goes_before_the_environment():
    settings = parse(["--admin-port", "5", "--path", "x"], {"SPILLWAY_ADMIN_PORT": "1", "SPILLWAY_PATH": "a"})
    assert settings.listen.admin_port == 5
    assert settings.source.paths == (Path("x"),)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--path is missing"),
        (["--path", "d", "--allow-host", "10.0.0.1/8"], "--allow-host"),
        (["--path", "d", "--source", "etcd"], "invalid choice"),
        (["--path", "d", "--admin-port", "x"], "invalid int"),
        (["--path", "d", "--admin-port", "70000"], "between 0 and 65535"),
        (["--path", "d", "--status-interval", "0"], "above 0"),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stopped:
        parse(arguments, {})
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_a_cluster_has_defaults_of_its_own():
    settings = parse(["--source", "kubernetes"], {})
    assert settings.listen.host == "0.0.0.0"
    assert settings.source.allowed_hosts == ()  # loopback of a gateway's pod is the gateway
    assert settings.status.figures_interval_seconds == 10
    assert settings.cluster.authentication == "token"
    assert settings.cluster.namespaces == ()


def test_options_of_a_cluster_are_taken_from_the_environment_too():
    settings = parse(
        ["--source", "kubernetes"],
        {
            "SPILLWAY_WATCH_NAMESPACE": "a,b",
            "SPILLWAY_GATEWAY_SERVICE_ACCOUNT": "ml/gateway",
            "SPILLWAY_TLS_CERT_FILE": "c",
            "SPILLWAY_TLS_KEY_FILE": "k",
            "SPILLWAY_LEASE_NAMESPACE": "spillway",
            "SPILLWAY_POD_SELECTOR": "app=x",
        },
    )
    assert settings.cluster.namespaces == ("a", "b")
    assert settings.cluster.gateways == (("ml", "gateway"),)
    assert (settings.cluster.certificate, settings.cluster.key) == (Path("c"), Path("k"))
    assert (settings.cluster.lease_namespace, settings.cluster.pod_selector) == ("spillway", "app=x")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gateway-service-account", "gateway"], "NAMESPACE/NAME"),
        (["--tls-cert-file", "c"], "go together"),
        (["--authentication", "none"], "invalid choice"),
        (["--external-metrics-port", "6443"], "needs --tls-cert-file"),
    ],
)
def test_what_is_wrong_about_a_cluster_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        parse(["--source", "kubernetes", *arguments], {})
    assert said in capsys.readouterr().err
