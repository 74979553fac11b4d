"""Programs out of Debian's packages, unpacked into a folder: nothing is installed, and no root is needed.

apt checks the signatures and sums, as always; its lists and downloads lie in a folder of ours, so that the machine's own
state is neither used nor changed. Which packages are missing is what apt would install, so libraries come along.
"""

import hashlib
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.cache import kept, say
from e2e.cluster.layout import ClusterError


@dataclass(frozen=True, slots=True)
class Group:
    """Packages that are fetched together, and the programs by which one knows that they are there already."""

    name: str
    packages: tuple[str, ...]
    programs: tuple[str, ...]


ETCD = Group("etcd", ("etcd-server",), ("etcd",))
CONTAINERS = Group(
    "containers",
    ("containerd", "runc", "containernetworking-plugins", "nftables"),
    ("containerd", "ctr", "runc", "nft", "host-local"),
)


def unpacked(group: Group, *, whole: bool = False) -> Path:
    """A folder with the packages of a group, made once; see `unpack`."""
    name = hashlib.sha256(f"{group.packages} {whole} {_release()}".encode()).hexdigest()[:12]
    return kept(f"{group.name}-{name}", lambda folder: unpack(group, folder, whole=whole))


def unpack(group: Group, folder: Path, *, whole: bool) -> None:
    """Unpacks the packages of a group and what they depend on: what this machine lacks of it, or the whole."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ClusterError(
            f"no {', '.join(group.programs)} on PATH and no apt-get to get them with: install them, or set KUBECONFIG"
        )
    say(f"downloading {', '.join(group.packages)} and what they need (once)")
    apt = folder / "apt"
    for name in ("lists/partial", "archives/partial"):
        (apt / name).mkdir(parents=True)
    options = [f"-oDir::State::lists={apt}/lists", f"-oDir::Cache={apt}", "-oDebug::NoLocking=1", "-oAPT::Sandbox::User="]
    if whole:
        options.append("-oDir::State::status=/dev/null")
    _apt([*options, "--quiet", "update"])
    plan = _apt([*options, "--simulate", "--no-install-recommends", "install", *group.packages])
    # Packages of the group that are installed already are not in the plan; their programs are found on PATH.
    wanted = re.findall(r"^Inst (\S+) (?:\[\S+\] )?\((\S+)", plan, re.MULTILINE)
    _apt([*options, "--quiet", "download", *(f"{name}={version}" for name, version in wanted)], cwd=apt)
    if whole:
        for name in ("bin", "sbin", "lib", "lib64"):  # as Debian has it: one tree under /usr
            (folder / "usr" / name).mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(f"usr/{name}")
    for package in sorted(apt.glob("*.deb")):
        # As `dpkg-deb --extract`, which would put a folder in the place of the link /lib.
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as content:
            subprocess.run(["tar", "-xp", "--keep-directory-symlink", "-C", folder], stdin=content.stdout, check=True)
        if content.returncode:
            raise ClusterError(f"{package.name} is damaged")
    shutil.rmtree(apt)


def _apt(arguments: list[str], *, cwd: Path | None = None) -> str:
    done = subprocess.run(["apt-get", *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"apt-get {arguments[-1]} failed (it needs the network, and Debian's sources): {done.stderr.strip()}")
    return done.stdout


def _release() -> str:
    try:
        return Path("/etc/os-release").read_text()
    except FileNotFoundError:
        return "unknown"
