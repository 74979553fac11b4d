"""Puts the sidecar into pods. Pure: a pod and the installation's settings in, a pod or a JSON patch out.

`decide` says whether and before which port; `injected` makes the pod; `pod_patch` is the two together for the webhook, and
`inject_manifest` for people. `inbound_port` and `lacks_sidecar` read pods for those who watch them.
"""

from __future__ import annotations

from collections.abc import Sequence

from spillway_operator.injection.config import BackendPods, InjectionConfig, Resources
from spillway_operator.injection.decide import Decision, Engine, Outcome, decide
from spillway_operator.injection.inject import injected
from spillway_operator.injection.manifests import Look, Result, inject_manifest
from spillway_operator.injection.patch import Operation, json_patch
from spillway_operator.injection.pods import Pod, inbound_port, lacks_sidecar

__all__ = [
    "BackendPods",
    "Decision",
    "Engine",
    "InjectionConfig",
    "Look",
    "Operation",
    "Outcome",
    "Resources",
    "Result",
    "decide",
    "inbound_port",
    "inject_manifest",
    "injected",
    "json_patch",
    "lacks_sidecar",
    "pod_patch",
]


def pod_patch(
    pod: Pod, namespace: str, config: InjectionConfig, backends: Sequence[BackendPods] = ()
) -> tuple[Decision, list[Operation]]:
    """What is decided about a pod made in `namespace`, and the operations that do it; none where it stays as it is."""
    decision = decide(pod, namespace, config, backends)
    if decision.engine is None:
        return decision, []
    return decision, json_patch(pod, injected(pod, decision.engine, config))
