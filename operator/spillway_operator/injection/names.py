"""Labels, annotations and names that injection reads and writes. Users and the chart rely on them: a change is a break."""

from __future__ import annotations

from typing import Final

LABEL_NAMESPACE: Final = "spillway.dev/injection"  # on a namespace: "enabled" lets pods in it ask for a sidecar
LABEL_INJECT: Final = "spillway.dev/inject"  # on a pod: "true" asks for a sidecar, "false" refuses one also by hand
LABEL_SIDECAR: Final = "spillway.dev/sidecar"  # on a pod, by us: "injected"
LABEL_SIDECAR_VALUE: Final = "injected"

ANNOTATION_ENGINE_PORT: Final = "spillway.dev/engine-port"
ANNOTATION_ENGINE_CONTAINER: Final = "spillway.dev/engine-container"
ANNOTATION_ENGINE_HEALTH: Final = "spillway.dev/engine-health"  # path; by us from the pod's probes where a user gives none
ANNOTATION_SECRETS: Final = "spillway.dev/secrets"  # Secrets of the pod's namespace that its proxy may read, comma-separated
ANNOTATION_HASH: Final = "spillway.dev/sidecar-hash"  # by us: which template the sidecar was made from
ANNOTATION_OPERATOR_CA: Final = "spillway.dev/operator-ca"  # by us: the CA bundle, which the proxy reads through the downward API

CONTAINER: Final = "spillway-proxy"
PORT_INBOUND: Final = "spillway"  # the name by which Services and the operator find the inbound listener
PORT_ROUTE: Final = "spillway-route"
PORT_ADMIN: Final = "spillway-admin"
VOLUME_OPERATOR: Final = "spillway-operator"
VOLUME_STATE: Final = "spillway-state"
VOLUME_SECRETS: Final = "spillway-secrets"

MOUNT_OPERATOR: Final = "/var/run/spillway/operator"
MOUNT_STATE: Final = "/var/lib/spillway"
MOUNT_SECRETS: Final = "/var/run/spillway/secrets"

# An engine's command line refers to these, so that one manifest runs with the sidecar and without it.
ENV_ENGINE_HOST: Final = "SPILLWAY_ENGINE_HOST"
ENV_ENGINE_PORT: Final = "SPILLWAY_ENGINE_PORT"

LOOPBACK: Final = "127.0.0.1"
SYSTEM_NAMESPACES: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
