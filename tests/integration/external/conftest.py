"""Servers outside with certificates of an authority of the tests, and a client that shows the whole answer."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.integration.external.provider import Provider, serving
from tests.integration.standalone.conftest import Standalone, start, until

__all__ = ["start"]  # the fixture


@dataclass
class Outside:
    """An authority that is trusted by whoever is given `ca_file`, and servers that it vouches for."""

    authority: trustme.CA
    ca_file: Path
    stack: ExitStack

    def provider(self, text: str, *, name: str = "localhost", authority: trustme.CA | None = None) -> Provider:
        """A server with TLS whose certificate is for `name`."""
        return self.stack.enter_context(serving(Provider(text), (authority or self.authority).issue_cert(name)))


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Outside]:
    authority = trustme.CA()
    ca_file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    with ExitStack() as stack:
        yield Outside(authority, ca_file, stack)


@dataclass
class Got:
    """One answer."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def text(self) -> str:
        """What the model said."""
        return str(json.loads(self.body)["choices"][0]["message"]["content"])

    @property
    def reason(self) -> str | None:
        """Why it is not what was asked for."""
        return self.headers.get("x-spillway-reason")


def ask(run: Standalone, path: str = "/v1/chat/completions", headers: dict[str, str] | None = None, **body: Any) -> Got:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", run.port, timeout=20)
    try:
        asked = {"model": "assistant", "messages": [{"role": "user", "content": "Hello"}], **body}
        connection.request("POST", path, json.dumps(asked), {"content-type": "application/json", **(headers or {})})
        reply = connection.getresponse()
        return Got(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode())
    finally:
        connection.close()


def condition(run: Standalone, backend: str, kind: str) -> tuple[str, str, str]:
    """Status, reason and message of a backend's condition; empty while the operator or the condition is not there."""
    try:
        resource = run.object("modelbackends", backend)
    except (OSError, StopIteration):
        return "", "", ""
    for found in resource.get("status", {}).get("conditions", []):
        if found["type"] == kind:
            return found["status"], found["reason"], found["message"]
    return "", "", ""


def until_condition(run: Standalone, backend: str, kind: str, status: str, reason: str) -> str:
    """Waits for a condition; its message."""
    until(lambda: condition(run, backend, kind)[:2] == (status, reason), f"{backend}: {kind}={status} {reason}", 15)
    return condition(run, backend, kind)[2]


def backend(name: str, url: str, *, secret: str | None = None, more: str = "") -> str:
    """A ModelBackend of a server outside."""
    auth = f", auth: {{secretRef: {{name: {secret}, key: token}}}}" if secret else ""
    return f"""
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec:
  provider: OpenAICompatible
  model: model-of-{name}
  external: {{url: "{url}"{auth}}}
{more}---
"""


def route(*names: str, model: str = "assistant", attempts: int = 2) -> str:
    """A ModelRoute that takes its backends by priority, in this order."""
    refs = ", ".join(f"{{name: {name}, priority: {index}}}" for index, name in enumerate(names))
    return f"""
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: {model}}}
spec:
  models: [{model}]
  rules: [{{name: all, backendRefs: [{refs}]}}]
  retries: {{maxAttempts: {attempts}}}
---
"""


Start = Callable[..., Standalone]
