"""A node: the namespaces it lives in, and its programs.

/run, /var/lib and /var/log are empty file systems of the node's own: what containerd, the CNI plugins and kubelet write at
fixed places stays in there and goes with it. The first node's namespaces are also those of the control plane. The second node
is a program of the first, as it were: one process, with everything of it below, that the keeper starts, and kills as a power
cut would. Its disk survives that, as its folder.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from e2e.cluster import api, images, network
from e2e.cluster.cgroups import make_cgroups
from e2e.cluster.keeper import Program
from e2e.cluster.layout import CONTAINERD_SOCKET, PROJECT, ClusterError, Layout, Node, cache_folder
from e2e.cluster.node_configuration import write_configuration
from e2e.cluster.programs import Programs

_OWN_FOLDERS = ("/run", "/var/lib", "/var/log")


def in_namespaces(layout: Layout, node: Node, kinds: tuple[str, ...]) -> list[str]:
    """A command line for a process whose end is the end of all that a node is."""
    unshare = ["unshare", *(f"--{kind}" for kind in kinds), "--fork", "--kill-child=KILL", "--"]
    return [*unshare, sys.executable, "-m", "e2e.cluster", "_inside", "--state", str(layout.state), "--node", node.name]


def arrange_namespaces(layout: Layout, node: Node) -> None:
    """Inside new namespaces, as their process 1: private mounts, an own /proc, the network."""
    node.folder.mkdir(exist_ok=True)
    # /proc is still that of whoever started us: it tells our number as they see it.
    node.first_process.write_text(str(Path("/proc/self").readlink()))
    _mount("--make-rprivate", "/")
    _mount("-t", "proc", "proc", "/proc")
    needed = (layout.state, PROJECT, cache_folder(), Path(sys.prefix), Path(sys.base_prefix))
    for folder in _OWN_FOLDERS:
        for path in needed:
            if path.is_relative_to(folder):
                raise ClusterError(f"{path} lies under {folder}, which the node hides behind an empty one: have it elsewhere")
        _mount("-t", "tmpfs", "tmpfs", folder)
    network.arrange_node(node)


def node_programs(layout: Layout, node: Node, programs: Programs) -> list[Program]:
    """containerd, then kubelet when containerd has the images, and kube-proxy."""
    write_configuration(layout, node, programs, cgroup=make_cgroups(node.name))
    path = {"PATH": programs.search_path}
    with_libraries = path | {"LD_LIBRARY_PATH": programs.library_path}
    has_images = _importer(layout, programs)
    folder = node.folder
    return [
        Program("containerd", (str(programs.path("containerd")), "--config", f"{folder}/containerd.toml"), environment=path),
        Program(
            "kubelet",
            (
                str(programs.path("kubelet")),
                f"--config={folder}/kubelet.json",
                f"--kubeconfig={layout.kubeconfig_of(f'kubelet-{node.name}')}",
                f"--hostname-override={node.name}",
                f"--node-ip={node.address}",
                f"--root-dir={folder}/kubelet",
                f"--cert-dir={folder}/kubelet-pki",
            ),
            after=lambda: has_images() and api.ready(layout),
            environment=path,
        ),
        Program(
            "kube-proxy",
            (str(programs.path("kube-proxy")), f"--config={folder}/kube-proxy.json"),
            after=lambda: api.ready(layout),
            environment=with_libraries,  # for nft, which it calls
        ),
    ]


def second_node(layout: Layout) -> Program:
    """On the first node: the second, as one program."""
    node = layout.second_node
    network.connect_second_node(node)
    enter = ("nsenter", f"--net=/run/netns/{node.name}", "--")
    return Program(node.name, (*enter, *in_namespaces(layout, node, ("mount", "pid"))))


def load(layout: Layout, programs: Programs, archive: Path) -> None:
    """Makes the images of a docker or OCI archive known to the nodes, also to one that starts later.

    Pods name them with `imagePullPolicy: Never` or `IfNotPresent`: there is nowhere to pull from.
    """
    layout.images.mkdir(exist_ok=True)
    kept = layout.images / archive.name
    kept.unlink(missing_ok=True)
    try:
        kept.hardlink_to(archive.resolve())
    except OSError:  # on another file system
        kept.symlink_to(archive.resolve())
    for node in (layout.first_node, layout.second_node):
        if node.first_process.exists():
            command = entering(layout, _import_command(programs, kept), node=node)
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode and node == layout.first_node:
                raise ClusterError(f"{archive} was not imported: {done.stderr.strip()}")


def entering(layout: Layout, command: list[str], *, node: Node | None = None) -> list[str]:
    """A command line that runs a command inside a node's namespaces (the first's), as in a shell there."""
    if not layout.first_node.first_process.exists():
        raise ClusterError(f"the cluster in {layout.state} has no namespaces of its own: it is of the control-plane tier")
    entered = [*_enter(layout.first_node)]
    if node == layout.second_node:
        entered += _enter(layout.second_node)
    return [*entered, *command]


def _enter(node: Node) -> list[str]:
    return ["nsenter", "--target", node.first_process.read_text(), "--mount", "--net", "--pid", "--"]


def _importer(layout: Layout, programs: Programs) -> Callable[[], bool]:
    """Imports what is not imported yet, and says whether that is all."""
    done: set[Path] = set()

    def import_all() -> bool:
        if not CONTAINERD_SOCKET.exists():
            return False
        for archive in (*images.base_images(programs), *sorted(layout.images.glob("*"))):
            if archive not in done:
                said = subprocess.run(_import_command(programs, archive), capture_output=True, text=True, check=False)
                if said.returncode:
                    print(f"{archive}: {said.stderr.strip()}", flush=True)
                    return False
                done.add(archive)
        return True

    return import_all


def _import_command(programs: Programs, archive: Path) -> list[str]:
    return [str(programs.path("ctr")), f"--address={CONTAINERD_SOCKET}", "--namespace=k8s.io", "images", "import", str(archive)]


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)
