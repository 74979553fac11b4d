"""The programs of a node, and the namespaces they live in.

/run, /var/lib and /var/log are empty file systems of the node's own: what containerd, the CNI plugins and kubelet write at
fixed places stays in there and goes with it. Containers' cgroups are the one thing that a namespace does not end with; they
lie under one folder, removed when the cluster goes.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from e2e.cluster import api, images, network
from e2e.cluster.keeper import Program
from e2e.cluster.layout import PROJECT, ClusterError, Layout, cache_folder
from e2e.cluster.programs import Programs

CGROUP = "spillway-e2e"
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_FOLDERS = ("/run", "/var/lib", "/var/log")


def first_process(layout: Layout) -> Path:
    """A file with the process id, as the machine sees it, of process 1 of the namespaces."""
    return layout.state / "first-process.pid"


def arrange_namespaces(layout: Layout) -> None:
    """Inside new namespaces: private mounts, an own /proc, the network."""
    _mount("--make-rprivate", "/")
    _mount("-t", "proc", "proc", "/proc")
    needed = (layout.state, PROJECT, cache_folder(), Path(sys.prefix), Path(sys.base_prefix))
    for folder in _OWN_FOLDERS:
        for path in needed:
            if path.is_relative_to(folder):
                raise ClusterError(f"{path} lies under {folder}, which the node hides behind an empty one: have it elsewhere")
        _mount("-t", "tmpfs", "tmpfs", folder)
    network.connect_node(layout)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def node_programs(layout: Layout, programs: Programs) -> list[Program]:
    """containerd, then kubelet when containerd has the images, and kube-proxy."""
    _write_configuration(layout, programs)
    _make_cgroups()
    path = {"PATH": programs.search_path}
    with_libraries = path | {"LD_LIBRARY_PATH": programs.library_path}
    loaded: set[Path] = set()

    def images_there() -> bool:
        return _import_all(layout, programs, loaded) and api.ready(layout)

    state = layout.state
    return [
        Program("containerd", (str(programs.path("containerd")), "--config", f"{state}/containerd.toml"), environment=path),
        Program(
            "kubelet",
            (
                str(programs.path("kubelet")),
                f"--config={state}/kubelet.json",
                f"--kubeconfig={layout.kubeconfig_of('kubelet')}",
                f"--hostname-override={layout.node_name}",
                f"--node-ip={layout.network.node}",
                f"--root-dir={state}/kubelet",
                f"--cert-dir={state}/kubelet-pki",
            ),
            after=images_there,
            environment=path,
        ),
        Program(
            "kube-proxy",
            (str(programs.path("kube-proxy")), f"--config={state}/kube-proxy.json"),
            after=lambda: api.ready(layout),
            environment=with_libraries,  # for nft, which it calls
        ),
    ]


def load(layout: Layout, programs: Programs, image: Path) -> None:
    """Makes the images of a docker or OCI archive known to the node; pods name them with `imagePullPolicy: Never`."""
    command = entering(layout, _import_command(layout, programs, image.resolve()))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"{image} was not imported: {done.stderr.strip()}")


def entering(layout: Layout, command: list[str]) -> list[str]:
    """A command line that runs a command inside the node's namespaces, as in a shell on the node."""
    try:
        process = first_process(layout).read_text()
    except FileNotFoundError:
        raise ClusterError(f"the cluster in {layout.state} has no namespaces of its own: it is of the control-plane tier") from None
    return ["nsenter", "--target", process, "--mount", "--net", "--pid", "--", *command]


def remove_cgroups() -> None:
    """Removes the cgroups that containers left. They are empty once their processes are gone, which takes the kernel a moment."""
    roots = [root for root in (_CGROUPS / CGROUP, *_CGROUPS.glob(f"*/{CGROUP}")) if root.is_dir()]
    for root in roots:
        for folder, _, _ in os.walk(root, topdown=False):
            _remove_cgroup(Path(folder))


def _remove_cgroup(folder: Path, *, seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise ClusterError(f"{folder} cannot be removed: {error}") from error
            time.sleep(0.05)
        else:
            return


def _make_cgroups() -> None:
    """One root for all pods, in each hierarchy of version 1 or in the one of version 2."""
    if (_CGROUPS / "cgroup.controllers").exists():
        (_CGROUPS / CGROUP).mkdir(exist_ok=True)
        return
    for hierarchy in _CGROUPS.iterdir():
        if (hierarchy / "cgroup.procs").exists() and not hierarchy.is_symlink():
            (hierarchy / CGROUP).mkdir(exist_ok=True)
    cpuset = _CGROUPS / "cpuset"
    if cpuset.exists():  # one of version 1 begins empty, and an empty one takes no process
        for name in ("cpuset.cpus", "cpuset.mems"):
            (cpuset / CGROUP / name).write_text((cpuset / name).read_text())


def _import_all(layout: Layout, programs: Programs, loaded: set[Path]) -> bool:
    if not layout.containerd_socket.exists():
        return False
    for image in images.base_images(programs):
        if image not in loaded:
            done = subprocess.run(_import_command(layout, programs, image), capture_output=True, text=True, check=False)
            if done.returncode:
                print(f"{image}: {done.stderr.strip()}", flush=True)
                return False
            loaded.add(image)
    return True


def _import_command(layout: Layout, programs: Programs, image: Path) -> list[str]:
    return [
        str(programs.path("ctr")),
        f"--address={layout.containerd_socket}",
        "--namespace=k8s.io",
        "images",
        "import",
        str(image),
    ]


def _write_configuration(layout: Layout, programs: Programs) -> None:
    state = layout.state
    plugins = programs.path("host-local").parent
    (state / "cni").mkdir()
    (state / "cni" / "10-pods.conflist").write_text(json.dumps(_pod_network(layout), indent=1))
    version = subprocess.run([programs.path("containerd"), "--version"], capture_output=True, text=True, check=True).stdout
    configuration = _containerd_1 if " 1." in version else _containerd_2
    (state / "containerd.toml").write_text(configuration(layout, plugins))
    (state / "resolv.conf").touch()  # pods resolve the cluster's names and nothing else
    (state / "kubelet.json").write_text(json.dumps(_kubelet(layout), indent=1))
    (state / "kube-proxy.json").write_text(json.dumps(_kube_proxy(layout), indent=1))


def _pod_network(layout: Layout) -> dict[str, object]:
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": layout.network.pods.replace(".0.0/16", ".0.0/24")}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}


_CONTAINERD = """\
root = "{state}/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.nri.v1.nri", "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
]
[grpc]
  address = "{socket}"
[plugins."io.containerd.internal.v1.opt"]
  path = "{state}/opt"
"""


def _containerd_1(layout: Layout, plugins: Path) -> str:
    return f"""version = 2
{_CONTAINERD.format(state=layout.state, socket=layout.containerd_socket)}
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
  conf_dir = "{layout.state}/cni"
"""


def _containerd_2(layout: Layout, plugins: Path) -> str:
    return f"""version = 3
{_CONTAINERD.format(state=layout.state, socket=layout.containerd_socket)}
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{images.PAUSE}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  disable_apparmor = true
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["{plugins}"]
  conf_dir = "{layout.state}/cni"
"""


def _kubelet(layout: Layout) -> dict[str, object]:
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
        "tlsCertFile": f"{layout.pki}/kubelet.crt",
        "tlsPrivateKeyFile": f"{layout.pki}/kubelet.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{CGROUP}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "clusterDomain": "cluster.local",
        "clusterDNS": [layout.network.dns_service],
        "resolvConf": f"{layout.state}/resolv.conf",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "200Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
            "nodefs.inodesFree": "1%",
        },
        "podLogsDir": f"{layout.state}/pod-logs",
        "volumePluginDir": f"{layout.state}/volume-plugins",
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
        "maxPods": 250,
    }


def _kube_proxy(layout: Layout) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(layout.kubeconfig_of("kube-proxy"))},
        "clusterCIDR": layout.network.pods,
        "mode": "nftables",
        "hostnameOverride": layout.node_name,
        "bindAddress": layout.network.node,
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # Limits of the machine's own kernel, which is not ours to set.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
