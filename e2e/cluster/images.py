"""Container images made without Docker: layers packed from folders, in the archive form that every runtime imports.

The node's own images are `PAUSE` and `COREDNS` (one static program each). Those of the project are built by `image_builds`.
"""

import hashlib
import io
import json
import os
import platform
import shutil
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from e2e.cluster.cache import kept
from e2e.cluster.programs import Programs

PAUSE = "localhost/spillway-e2e/pause:1"
COREDNS = "localhost/spillway-e2e/coredns:1"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed tar file with its digest (which is also its identity in an image's configuration)."""

    path: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Settings:
    """How a container of the image is started."""

    entrypoint: tuple[str, ...]
    user: str = "65532:65532"
    workdir: str = "/"
    environment: Mapping[str, str] = field(default_factory=dict)


def layer(path: Path, folder: Path, *, at: str = "") -> Layer:
    """Packs what lies in a folder, under the path `at` of the image, into the tar `path`.

    The same content gives the same bytes: sorted, without times, owned by root.
    """
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for parent in _parents(at):
            tar.addfile(parent)
        for entry in sorted(folder.iterdir()):
            tar.add(entry, arcname=f"{at}/{entry.name}".lstrip("/"), filter=_plain)
    with path.open("rb") as file:
        return Layer(path, hashlib.file_digest(file, "sha256").hexdigest())


def archive(path: Path, name: str, layers: Iterable[Layer], settings: Settings) -> Path:
    """Writes an image as a docker archive; the last layer lies on top."""
    stack = list(layers)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"} | dict(settings.environment)
    configuration = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": "1970-01-01T00:00:00Z",
            "config": {
                "Entrypoint": list(settings.entrypoint),
                "User": settings.user,
                "WorkingDir": settings.workdir,
                "Env": [f"{key}={value}" for key, value in environment.items()],
            },
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one.digest}" for one in stack]},
            "history": [{"created": "1970-01-01T00:00:00Z"} for _ in stack],  # a builder counts them
        }
    ).encode()
    identity = hashlib.sha256(configuration).hexdigest()
    manifest = [{"Config": f"{identity}.json", "RepoTags": [name], "Layers": [f"{one.digest}.tar" for one in stack]}]
    temporary = path.with_name(f".{path.name}.part")
    with tarfile.open(temporary, "w") as tar:
        for entry, content in ((f"{identity}.json", configuration), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(entry)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for one in stack:
            tar.add(one.path, arcname=f"{one.digest}.tar")
    temporary.replace(path)
    return path


def base_images(programs: Programs) -> list[Path]:
    """The archives of the images that a node needs by itself; made once."""
    return [
        _of_one_program(PAUSE, programs.path("pause"), "/pause"),
        _of_one_program(COREDNS, programs.path("coredns"), "/coredns"),
    ]


def _of_one_program(name: str, program: Path, at: str) -> Path:
    content = hashlib.sha256(program.read_bytes()).hexdigest()[:12]

    def make(folder: Path) -> None:
        root = folder / "root"
        root.mkdir()
        os.link(program, root / at.lstrip("/"))
        one = layer(folder / "layer.tar", root)
        archive(folder / "image.tar", name, [one], Settings((at,), user="65535:65535"))
        shutil.rmtree(root)
        one.path.unlink()

    return kept(f"image-{program.name}-{content}", make) / "image.tar"


def _plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mtime = 0
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _parents(at: str) -> list[tarfile.TarInfo]:
    entries = []
    path = ""
    for part in at.strip("/").split("/"):
        if part:
            path = f"{path}/{part}".lstrip("/")
            entry = tarfile.TarInfo(path)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            entries.append(entry)
    return entries
