"""The API server and `spillway validate` say the same of every object: random good ones, and the same ones spoilt."""

import http.client
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.kubectl import Kubectl
from hypothesis import HealthCheck, given, note, settings
from tests.fakes import resources

from spillway_operator.api.checker import faults
from spillway_operator.api.schema import KINDS


@pytest.fixture(scope="module")
def api(crds: Kubectl) -> Iterator[http.client.HTTPConnection]:
    """The API by a proxy on this machine: thousands of requests, without a kubectl for each."""
    with subprocess.Popen(
        crds.command("proxy", "--port=0"), env=dict(crds.environment), stdout=subprocess.PIPE, text=True
    ) as proxy:
        assert proxy.stdout is not None
        port = int(proxy.stdout.readline().rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        yield connection
        connection.close()
        proxy.terminate()


def answer(api: http.client.HTTPConnection, document: dict[str, Any]) -> tuple[int, str]:
    path = f"/apis/spillway.dev/v1alpha1/namespaces/default/{KINDS[document['kind']].plural}?dryRun=All&fieldValidation=Strict"
    metadata = {**document["metadata"], "namespace": "default"}
    api.request("POST", path, json.dumps(document | {"metadata": metadata}), {"content-type": "application/json"})
    response = api.getresponse()
    return response.status, response.read().decode()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=resources.objects)
def test_what_we_take_the_server_takes(api: http.client.HTTPConnection, document: dict[str, Any]) -> None:
    status, said = answer(api, document)
    note(said)
    assert status == 201


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(document=resources.spoilt())
def test_what_we_refuse_the_server_refuses(api: http.client.HTTPConnection, document: dict[str, Any]) -> None:
    status, said = answer(api, document)
    note(said)
    assert (status == 201) == (faults(document["kind"], document) == [])
