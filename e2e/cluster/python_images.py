"""The project's programs as images: Debian's Python, the locked dependencies, our packages, a layer each.

The layers below ours are kept, so that a change of the code costs a second. It is what the Dockerfiles make, on another base:
the same entry point, user and paths.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster import images
from e2e.cluster.cache import kept
from e2e.cluster.images import Layer, Settings
from e2e.cluster.layout import PROJECT, ClusterError

PROGRAMS = "opt/spillway"
DEPENDENCIES = "opt/dependencies"


@dataclass(frozen=True, slots=True)
class Component:
    """One of our images: our packages in it, the lock of what they need, the command."""

    repository: str
    packages: tuple[str, ...]
    lock: str
    entrypoint: tuple[str, ...]

    def lock_file(self) -> Path:
        own = PROJECT / "requirements" / self.lock
        return own if own.exists() else PROJECT / "requirements" / "run.lock"


OPERATOR = Component(
    "spillway/operator",
    ("operator/spillway_operator", "sidecar/spillway_wire"),
    "operator.lock",
    ("python", "-m", "spillway_operator"),
)
SIDECAR = Component(
    "spillway/sidecar",
    ("sidecar/spillway_sidecar", "sidecar/spillway_wire"),
    "sidecar.lock",
    ("python", "-m", "spillway_sidecar"),
)
# Everything, for the simulated engine and for load from inside the cluster.
COMMAND = Component(
    "spillway/command",
    ("cli/spillway", "operator/spillway_operator", "sidecar/spillway_sidecar", "sidecar/spillway_wire"),
    "run.lock",
    ("python", "-m", "spillway"),
)
COMPONENTS = (OPERATOR, SIDECAR, COMMAND)


def build(component: Component, tag: str, folder: Path) -> Path:
    """Writes the image of a component as an archive into a folder. Returns its path."""
    base = images.python_base()
    dependencies = _dependencies(component.lock_file(), base.python)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        code = Path(work, "code")
        for package in component.packages:
            source = PROJECT / package
            shutil.copytree(source, code / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        _compile(code, base.python)
        top = images.layer(Path(work, "code.tar"), code, at=PROGRAMS)
        environment = {"PYTHONPATH": f"/{PROGRAMS}:/{DEPENDENCIES}", "PYTHONUNBUFFERED": "1", "USER": "spillway"}
        archive = folder / f"{component.repository.replace('/', '-')}.tar"
        settings = Settings(component.entrypoint, environment=environment)
        return images.archive(archive, f"docker.io/{component.repository}:{tag}", [base.layer, dependencies, top], settings)


def _dependencies(lock: Path, python: str) -> Layer:
    """What a lock names, as wheels for that Python, without what only builds."""
    digest = hashlib.sha256(f"{python} {DEPENDENCIES}".encode() + lock.read_bytes()).hexdigest()[:12]

    def make(folder: Path) -> None:
        target = folder / "root"
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--quiet",
            "install",
            "--no-deps",
            "--require-hashes",
        ]
        command += [
            "--only-binary=:all:",
            f"--python-version={python}",
            "--no-compile",
            f"--target={target}",
            f"--requirement={lock}",
        ]
        if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
            raise ClusterError(f"what {lock.name} names could not be downloaded as wheels for Python {python}: see above")
        shutil.rmtree(target / "bin", ignore_errors=True)
        _compile(target, python)
        made = images.layer(folder / "layer.tar", target, at=DEPENDENCIES)
        (folder / "digest").write_text(made.digest)
        shutil.rmtree(target)

    folder = kept(f"layer-{lock.stem}-{digest}", make)
    return Layer(folder / "layer.tar", (folder / "digest").read_text())


def _compile(folder: Path, python: str) -> None:
    """Compiles ahead, where this Python is the image's: nothing can be written in a read-only container.

    Without times: an image has none.
    """
    if python == f"{sys.version_info.major}.{sys.version_info.minor}":
        command = [sys.executable, "-m", "compileall", "-q", "-j0", "--invalidation-mode=unchecked-hash", str(folder)]
        subprocess.run(command, check=False, stdout=subprocess.DEVNULL)  # a package may carry a file for other Pythons
