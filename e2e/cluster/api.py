"""Asking the API server how it is, without a client library: what readiness is waited for with."""

import json
import ssl
import urllib.error
import urllib.request
from typing import Any

from e2e.cluster.layout import Layout

TIMEOUT_SECONDS = 2.0


def get(layout: Layout, path: str) -> Any | None:
    """The JSON (or text) at a path of the API, as cluster-admin; None where there is no good answer."""
    try:
        context = ssl.create_default_context(cafile=str(layout.pki / "ca.crt"))
        context.load_cert_chain(layout.pki / "admin.crt", layout.pki / "admin.key")
        with urllib.request.urlopen(f"{layout.api_url}{path}", timeout=TIMEOUT_SECONDS, context=context) as answer:
            body = answer.read().decode()
    except OSError:  # refused, reset, timed out, an HTTP error: all of them mean "not yet"
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body


def ready(layout: Layout) -> bool:
    return get(layout, "/readyz") == "ok"


def accounts_ready(layout: Layout) -> bool:
    """Whether the controller manager does its work: a pod cannot be created before."""
    return get(layout, "/api/v1/namespaces/default/serviceaccounts/default") is not None


def node_ready(layout: Layout, name: str) -> bool:
    node = get(layout, f"/api/v1/nodes/{name}")
    conditions = node["status"].get("conditions", []) if isinstance(node, dict) else []
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def dns_ready(layout: Layout) -> bool:
    deployment = get(layout, "/apis/apps/v1/namespaces/kube-system/deployments/coredns")
    return isinstance(deployment, dict) and deployment["status"].get("availableReplicas", 0) > 0
