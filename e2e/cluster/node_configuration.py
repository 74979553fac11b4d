"""The configuration files of a node's programs: containerd (of version 1 or 2), the pods' network, kubelet, kube-proxy."""

import json
import subprocess
from pathlib import Path

from e2e.cluster import images
from e2e.cluster.layout import CONTAINERD_SOCKET, Layout, Node
from e2e.cluster.programs import Programs


def write_configuration(layout: Layout, node: Node, programs: Programs, *, cgroup: str) -> None:
    """Writes what the programs of a node are started with into its folder."""
    plugins = programs.path("host-local").parent
    (node.folder / "cni").mkdir(exist_ok=True)
    (node.folder / "cni" / "10-pods.conflist").write_text(json.dumps(_pod_network(node), indent=1))
    version = subprocess.run([programs.path("containerd"), "--version"], capture_output=True, text=True, check=True).stdout
    configuration = _containerd_1 if " 1." in version else _containerd_2
    (node.folder / "containerd.toml").write_text(configuration(node, plugins))
    (node.folder / "resolv.conf").touch()  # pods resolve the cluster's names and nothing else
    (node.folder / "kubelet.json").write_text(json.dumps(_kubelet(layout, node, cgroup), indent=1))
    (node.folder / "kube-proxy.json").write_text(json.dumps(_kube_proxy(layout, node), indent=1))


def _pod_network(node: Node) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": node.pods}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


_CONTAINERD = """\
root = "{folder}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{folder}/opt"
"""


def _containerd_1(node: Node, plugins: Path) -> str:
    return f"""version = 2
{_CONTAINERD.format(folder=node.folder, socket=CONTAINERD_SOCKET)}
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{images.PAUSE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{plugins}"
  conf_dir = "{node.folder}/cni"
"""


def _containerd_2(node: Node, plugins: Path) -> str:
    return f"""version = 3
{_CONTAINERD.format(folder=node.folder, socket=CONTAINERD_SOCKET)}
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{images.PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{node.folder}/cni"
"""


def _kubelet(layout: Layout, node: Node, cgroup: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": "0.0.0.0",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{layout.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{layout.pki}/kubelet-{node.name}.crt",
        "tlsPrivateKeyFile": f"{layout.pki}/kubelet-{node.name}.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [layout.network.dns_service],
        "resolvConf": f"{node.folder}/resolv.conf",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "podLogsDir": f"{node.folder}/pod-logs",
        "volumePluginDir": f"{node.folder}/volume-plugins",
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 250,
    }


def _kube_proxy(layout: Layout, node: Node) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig_of("kube-proxy"))},
        "clusterCIDR": layout.network.pods,
        "mode": "nftables",
        "hostnameOverride": node.name,
        "bindAddress": node.address,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # Limits of the machine's own kernel, which is not ours to set.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
