"""The programs a cluster is made of: built with Go, or unpacked from Debian's packages, into the user's cache folder.

Each group of programs has a folder there that is named by the hash of the group's lock (`e2e/tools/<group>/`), so a fresh
clone finds what an older one built, and a changed lock builds anew beside it. Nothing is installed on the machine.
"""

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import debian
from e2e.cluster.cache import kept, say
from e2e.cluster.layout import PROJECT, ClusterError, Tier

TOOLS = PROJECT / "e2e" / "tools"
# Built with Go 1.27 the API server's OpenAPI is broken (`kubectl apply` fails), with 1.25 it does not compile.
GO = "1.26"
GO_TOOLCHAIN = "go1.26.8"
_SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_VERSION = "k8s.io/component-base/version"


@dataclass(frozen=True, slots=True)
class GoGroup:
    """Programs of one Go module under `e2e/tools`; `version_of` is the required module whose version the programs tell."""

    name: str
    programs: tuple[str, ...]
    version_of: str = ""
    version_flags: tuple[str, ...] = ()
    packages: str = "tool"


KUBERNETES = GoGroup(
    "kubernetes",
    ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"),
    version_of="k8s.io/kubernetes",
    version_flags=(
        f"-X {_VERSION}.gitVersion={{version}}",
        f"-X {_VERSION}.gitMajor={{major}}",
        f"-X {_VERSION}.gitMinor={{minor}}",
    ),
)
HELM = GoGroup(
    "helm", ("helm",), version_of="helm.sh/helm/v4", version_flags=("-X helm.sh/helm/v4/internal/version.version={version}",)
)
COREDNS = GoGroup("coredns", ("coredns",), version_of="github.com/coredns/coredns", packages=".")
PAUSE = GoGroup("pause", ("pause",), packages=".")

GO_GROUPS = {Tier.CONTROL_PLANE: (KUBERNETES, HELM), Tier.NODE: (KUBERNETES, HELM, COREDNS, PAUSE)}
DEBIAN_GROUPS = {Tier.CONTROL_PLANE: (debian.ETCD,), Tier.NODE: (debian.ETCD, debian.CONTAINERS)}


@dataclass(frozen=True, slots=True)
class Programs:
    """Where the programs lie."""

    folders: tuple[Path, ...]
    libraries: tuple[Path, ...]

    def path(self, name: str) -> Path:
        found = shutil.which(name, path=self.search_path)
        if found is None:
            raise ClusterError(f"{name} is neither among the built programs nor on PATH")
        return Path(found)

    @property
    def search_path(self) -> str:
        """For PATH: what we built first, then the machine's own, with the folders of system programs."""
        return ":".join([*(str(folder) for folder in self.folders), _SYSTEM_PATH])

    @property
    def library_path(self) -> str:
        return ":".join(str(folder) for folder in self.libraries)


def have(tier: Tier) -> Programs:
    """The programs of a tier; builds and downloads what is missing, which takes minutes the first time."""
    folders = [_built(group) for group in GO_GROUPS[tier]]
    libraries: list[Path] = []
    for group in DEBIAN_GROUPS[tier]:
        if not all(shutil.which(name, path=_SYSTEM_PATH) for name in group.programs):
            root = debian.unpacked(group)
            folders += [root / "usr/bin", root / "usr/sbin", root / "usr/lib/cni"]
            libraries += sorted((root / "usr/lib").glob("*-linux-gnu*"))
    return Programs(tuple(folders), tuple(libraries))


def clients() -> Programs:
    """Only kubectl and helm, for somebody else's cluster: those on PATH, or ours where one is missing."""
    if shutil.which("kubectl") and shutil.which("helm"):
        return Programs((), ())
    return Programs((_built(KUBERNETES), _built(HELM)), ())


def _built(group: GoGroup) -> Path:
    source = TOOLS / group.name

    def build(folder: Path) -> None:
        environment = go_environment(source)
        version = module_version(source, group.version_of) if group.version_of else "v0.0.0"
        major, minor, _ = version.removeprefix("v").split(".", 2)
        flags = " ".join(["-s -w", *group.version_flags]).format(version=version, major=major, minor=minor)
        say(f"building {', '.join(group.programs)} {version} (once; minutes)")
        command = ["go", "install", "-trimpath", "-buildvcs=false", "-mod=readonly", "-ldflags", flags, group.packages]
        variables = {"CGO_ENABLED": "0", "GOBIN": str(folder), "GOWORK": "off", "GOFLAGS": ""}
        done = subprocess.run(command, cwd=source, env=environment | variables, stdout=sys.stderr, check=False)
        missing = [name for name in group.programs if not (folder / name).exists()]
        if done.returncode or missing:
            raise ClusterError(
                f"`{' '.join(command)}` in {source} failed, see above; it made no {', '.join(missing)}. "
                "The first build downloads its modules: it needs the network, or a module proxy in GOPROXY"
            )

    return kept(f"{group.name}-{lock_digest(source)}", build)


def go_environment(source: Path) -> dict[str, str]:
    """An environment in which `go` is the version that this Kubernetes builds with. Raises ClusterError with the remedy."""
    remedy = f"install Go {GO}, put it first on PATH, or point KUBECONFIG at a cluster that is there already"
    if shutil.which("go") is None:
        raise ClusterError(f"Go {GO} is needed to build Kubernetes, and there is no `go` on PATH: {remedy}")
    found = ""
    # A Go of another version can fetch the right one by itself, unless it is told not to.
    for environment in (dict(os.environ), {**os.environ, "GOTOOLCHAIN": GO_TOOLCHAIN}):
        answer = subprocess.run(
            ["go", "env", "GOVERSION"], cwd=source, env=environment, capture_output=True, text=True, check=False
        )
        found = answer.stdout.strip() or found
        if re.match(rf"go{re.escape(GO)}(\.|$|rc)", answer.stdout):
            return environment
    raise ClusterError(f"Go {GO} is needed to build this Kubernetes, and `go` is {found or 'broken'}: {remedy}")


def module_version(source: Path, module: str) -> str:
    match = re.search(rf"^\s*(?:require )?{re.escape(module)} (v\S+)", (source / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise ClusterError(f"{source}/go.mod does not require {module}")
    return match.group(1)


def lock_digest(source: Path) -> str:
    """Tells folders apart that were made from different locks, on different machines or by another Go."""
    digest = hashlib.sha256(f"{platform.machine()} {GO}".encode())
    for file in sorted(source.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]
