"""What an installation says of itself when a test of it fails: the tables that a person would look at first, figures and last words."""

import json
import subprocess
import urllib.request
from typing import Any

from e2e.kubectl import Kubectl

_TABLES = ("modelbackends,modelroutes,deployments", "pods", "nodes")
_LINES = 25


def evidence(system: Kubectl) -> str:
    """Of the installation whose namespace this is. What cannot be had says so in its place."""
    everywhere = Kubectl(system.environment)
    parts = [_said(everywhere, "get", kinds, "--all-namespaces", "--output=wide") for kinds in _TABLES]
    try:
        pods = system.get("pods", "--selector=app.kubernetes.io/component in (operator,gateway)")["items"]
    except AssertionError as error:
        return "\n\n".join([*parts, str(error)])
    for pod in pods:
        name, operator = pod["metadata"]["name"], pod["metadata"]["labels"]["app.kubernetes.io/component"] == "operator"
        if operator:
            parts.append(f"{name}: {_scaling(pod['status'].get('podIP'))}")
        parts.append(f"{name}:\n{_said(system, 'logs', name, f'--tail={_LINES}')}")
    return "\n\n".join(parts)


def _said(kubectl: Kubectl, *arguments: str) -> str:
    try:
        said = kubectl.said(*arguments)
    except subprocess.TimeoutExpired:
        return f"kubectl {' '.join(arguments)}: no answer"
    return (said.out + said.err).strip()


def _scaling(address: str | None) -> str:
    """What an operator makes of the backends that scale, and of the targets."""
    try:
        with urllib.request.urlopen(f"http://{address}:8081/info", timeout=5) as reply:
            info: dict[str, Any] = json.load(reply)
    except (OSError, ValueError) as error:
        return f"/info: {error}"
    found = {"scaling": info["core"]["scaling"], "loads": info["loads"], "discovery": info["discovery"]}
    return json.dumps(found | {part: info["cluster"][part] for part in ("election", "scale")})
