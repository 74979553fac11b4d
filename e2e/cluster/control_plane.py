"""The programs of the control plane, as command lines.

Authorization is Node and RBAC, so that a rule missing from a chart really is refused. The aggregation layer and the signing
of certificates are on. The autoscaler and the node controller are quick, so that a test need not wait for minutes.
"""

from pathlib import Path

from e2e.cluster import api
from e2e.cluster.keeper import Program
from e2e.cluster.layout import Layout, Tier
from e2e.cluster.programs import Programs


def control_plane(layout: Layout, programs: Programs) -> list[Program]:
    """etcd, API server, controller manager, scheduler: the last two when the API answers."""
    return [
        _etcd(layout, programs.path("etcd")),
        _api_server(layout, programs.path("kube-apiserver")),
        _controller_manager(layout, programs.path("kube-controller-manager")),
        _scheduler(layout, programs.path("kube-scheduler")),
    ]


def _etcd(layout: Layout, program: Path) -> Program:
    client, peer = (f"http://127.0.0.1:{port}" for port in (layout.etcd_port, layout.etcd_peer_port))
    flags = {
        "name": "one",
        "data-dir": layout.state / "etcd",
        "listen-client-urls": client,
        "advertise-client-urls": client,
        "listen-peer-urls": peer,
        "initial-advertise-peer-urls": peer,
        "initial-cluster": f"one={peer}",
        "log-level": "warn",
        "unsafe-no-fsync": "true",  # the data lives as long as the test
    }
    return Program("etcd", (str(program), *_flags(flags)))


def _api_server(layout: Layout, program: Path) -> Program:
    pki = layout.pki
    if layout.tier is Tier.NODE:
        address = {"bind-address": "0.0.0.0", "advertise-address": layout.first_node.address}
    else:
        # Loopback may not be the endpoint of a Service; nobody needs the kubernetes Service where there are no pods.
        address = {"bind-address": "127.0.0.1", "advertise-address": "127.0.0.1", "endpoint-reconciler-type": "none"}
    flags = address | {
        "secure-port": layout.api_port,
        "etcd-servers": f"http://127.0.0.1:{layout.etcd_port}",
        "service-cluster-ip-range": layout.network.services,
        "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
        "allow-privileged": "true",
        "profiling": "false",
        "tls-cert-file": pki / "apiserver.crt",
        "tls-private-key-file": pki / "apiserver.key",
        "client-ca-file": pki / "ca.crt",
        "kubelet-client-certificate": pki / "apiserver-kubelet-client.crt",
        "kubelet-client-key": pki / "apiserver-kubelet-client.key",
        "kubelet-preferred-address-types": "InternalIP,Hostname",
        "service-account-issuer": "https://kubernetes.default.svc",
        "api-audiences": "https://kubernetes.default.svc",
        "service-account-key-file": pki / "service-accounts.pub",
        "service-account-signing-key-file": pki / "service-accounts.key",
        "requestheader-client-ca-file": pki / "front-proxy-ca.crt",
        "requestheader-allowed-names": "front-proxy-client",
        "requestheader-extra-headers-prefix": "X-Remote-Extra-",
        "requestheader-group-headers": "X-Remote-Group",
        "requestheader-username-headers": "X-Remote-User",
        "proxy-client-cert-file": pki / "front-proxy-client.crt",
        "proxy-client-key-file": pki / "front-proxy-client.key",
    }
    return Program("kube-apiserver", (str(program), *_flags(flags)))


def _controller_manager(layout: Layout, program: Path) -> Program:
    kubeconfig = layout.kubeconfig_of("kube-controller-manager")
    flags = _component(kubeconfig, layout.controller_manager_port) | {
        "use-service-account-credentials": "true",
        "root-ca-file": layout.pki / "ca.crt",
        "service-account-private-key-file": layout.pki / "service-accounts.key",
        "cluster-signing-cert-file": layout.pki / "ca.crt",
        "cluster-signing-key-file": layout.pki / "ca.key",
        "requestheader-client-ca-file": layout.pki / "front-proxy-ca.crt",
        "flex-volume-plugin-dir": layout.state / "volume-plugins",
        "horizontal-pod-autoscaler-sync-period": "2s",
        "horizontal-pod-autoscaler-downscale-stabilization": "10s",
        "horizontal-pod-autoscaler-initial-readiness-delay": "0s",
        "node-monitor-grace-period": "40s",
    }
    return Program("kube-controller-manager", (str(program), *_flags(flags)), after=lambda: api.ready(layout))


def _scheduler(layout: Layout, program: Path) -> Program:
    flags = _component(layout.kubeconfig_of("kube-scheduler"), layout.scheduler_port)
    return Program("kube-scheduler", (str(program), *_flags(flags)), after=lambda: api.ready(layout))


def _component(kubeconfig: Path, port: int) -> dict[str, object]:
    return {
        "kubeconfig": kubeconfig,
        "authentication-kubeconfig": kubeconfig,
        "authorization-kubeconfig": kubeconfig,
        "bind-address": "127.0.0.1",
        "secure-port": port,
        "leader-elect": "false",
    }


def _flags(flags: dict[str, object]) -> list[str]:
    return [f"--{name}={value}" for name, value in flags.items()]
