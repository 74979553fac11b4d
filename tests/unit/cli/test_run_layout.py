"""Which processes a run is made of, and how it gets from one set to another."""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from spillway.run.layout import Site, back_off_seconds, changes, endpoints_document, fixed_children, replicas, targets_document
from spillway.run.standalone import Simulation, Standalone
from spillway.run.supervisor import child_environment, without_secrets

SITE = Site(("a", "b.yaml"), Path("/state"), 8080, 8081, 8082, 8083)


def port_source() -> Callable[[str], int]:
    numbers = count(20_000)
    return defaultdict(lambda: next(numbers)).__getitem__


def arguments(command: tuple[str, ...]) -> str:
    return " ".join(command[1:])


def test_the_operator_reads_every_path_and_the_gateway_finds_it():
    operator, gateway = fixed_children(SITE, ["models.lan"])
    assert arguments(operator.command) == (
        "-m spillway_operator --source files --path a --path b.yaml --endpoints-file /state/endpoints.json "
        "--targets-file /state/targets.json --scale-file /state/scale.json --admin-port 8081 --discovery-port 8083 --allow-host models.lan"
    )
    assert arguments(gateway.command) == (
        "-m spillway_sidecar --role gateway --node-id gateway-0 --operator http://127.0.0.1:8083 --port 8080 --admin-port 8082 "
        "--state-dir /state/gateway-0"
    )


def test_each_replica_is_an_engine_and_a_sidecar_that_know_of_each_other():
    (replica,) = replicas(SITE, Standalone({"ml/fast": Simulation(decode_rate=80)}), port_source())
    assert (replica.id, replica.cluster, replica.inbound_port) == ("ml/fast-0", "ml/fast", 20_001)
    assert replica.admin_port == 20_002
    assert arguments(replica.engine.command) == "-m spillway sim-engine --host 127.0.0.1 --port 20000 --model fast --decode-rate 80"
    assert arguments(replica.sidecar.command) == (
        "-m spillway_sidecar --role sidecar --node-id ml/fast-0 --operator http://127.0.0.1:8083 --port 20003 --inbound-port 20001 "
        "--engine http://127.0.0.1:20000 --engine-health /health --admin-port 20002 --state-dir /state/ml-fast-0"
    )
    assert replica.sidecar.log_name == "sidecar-ml-fast-0.log"


def test_secrets_and_authorities_are_for_the_proxies_alone():
    site = dataclasses.replace(SITE, secrets_dir=Path("/keys"), ca_file=Path("/ca.pem"))
    (replica,) = replicas(site, Standalone({"default/fast": Simulation()}), port_source())
    operator, gateway = fixed_children(site, [])
    for spec, wanted in ((operator, False), (gateway, True), (replica.engine, False), (replica.sidecar, True)):
        assert ("--secrets-dir /keys --ca-file /ca.pem" in arguments(spec.command)) is wanted, spec.name
        assert spec.secrets is wanted
    environ = {"PATH": "/bin", "SPILLWAY_SECRET_OPENAI_TOKEN": "sk", "SPILLWAY_SECRETS_DIR": "/keys"}
    assert without_secrets(environ) == {"PATH": "/bin", "SPILLWAY_SECRETS_DIR": "/keys"}


def test_proxies_end_before_engines_and_the_operator_last():
    (replica,) = replicas(SITE, Standalone({"default/fast": Simulation()}), port_source())
    operator, gateway = fixed_children(SITE, [])
    assert gateway.stop_step == replica.sidecar.stop_step < replica.engine.stop_step < operator.stop_step


def test_a_change_touches_only_the_processes_whose_command_changed():
    ports = port_source()

    def children(simulate: dict[str, Simulation]) -> list[str]:
        return [spec for replica in replicas(SITE, Standalone(simulate), ports) for spec in (replica.engine, replica.sidecar)]

    before = children({"default/fast": Simulation(replicas=2), "default/slow": Simulation()})
    after = children(
        {"default/fast": Simulation(replicas=1), "default/slow": Simulation(decode_rate=10), "default/new": Simulation()}
    )
    leaving, coming = changes(before, after)
    assert sorted(spec.name for spec in leaving) == ["engine fast-1", "engine slow-0", "sidecar fast-1"]
    assert sorted(spec.name for spec in coming) == ["engine new-0", "engine slow-0", "sidecar new-0"]


def test_the_operator_asks_for_other_numbers_of_engines_that_are_simulated():
    standalone = Standalone({"default/fast": Simulation(replicas=2, cold_start_seconds=3), "default/slow": Simulation()})
    scaled = standalone.scaled({"default/fast": 500, "default/gone": 3})
    assert json.loads(targets_document(scaled)) == {"replicas": {"default/fast": 64, "default/slow": 1}}
    first, *_ = replicas(SITE, scaled, port_source())
    assert first.cold_start_seconds == 3
    assert arguments(first.engine.command).endswith("--cold-start-seconds 3")


def test_the_endpoints_file_names_simulated_backends_that_have_no_endpoint_yet():
    standalone = Standalone({"default/fast": Simulation(replicas=2), "default/slow": Simulation()})
    first, *_ = replicas(SITE, standalone, port_source())
    assert json.loads(endpoints_document([first], standalone)) == {
        "endpoints": {"default/fast": [{"id": "fast-0", "host": "127.0.0.1", "port": 20_001, "inbound": True}], "default/slow": []}
    }


@pytest.mark.parametrize(("deaths", "seconds"), [(1, 0.2), (2, 0.4), (5, 3.2), (6, 5.0), (5000, 5.0)])
def test_restarts_back_off(deaths: int, seconds: float):
    assert back_off_seconds(deaths) == pytest.approx(seconds)


def test_children_get_secrets_from_the_environment_and_not_the_options_of_run():
    environ = {"PATH": "/bin", "SPILLWAY_PORT": "1", "SPILLWAY_ADMIN_PORT": "2", "SPILLWAY_SECRET_OPENAI_TOKEN": "k"}
    assert child_environment(environ, ["port", "admin_port"]) == {
        "PATH": "/bin",
        "SPILLWAY_SECRET_OPENAI_TOKEN": "k",
        "PYTHONUNBUFFERED": "1",
    }
