"""The project's images, built from its Dockerfiles as `make images` builds them: by buildah, which needs no daemon.

Where there is none on PATH it comes from Debian's packages, laid over /usr for the one process and those it starts. The
Dockerfiles' base is not fetched from a registry: it is Debian's own Python with what building takes, and the images that come
of it differ from those on another base in nothing but the interpreter. What is built is kept by layers in the user's cache
folder, so that a change of the code costs seconds.
"""

import os
import shlex
import shutil
import ssl
import subprocess
from pathlib import Path

from e2e.cluster import debian, images
from e2e.cluster.cache import kept, say
from e2e.cluster.images import Settings
from e2e.cluster.layout import PROJECT, ClusterError, cache_folder

BUILDER = debian.Group("builder", ("buildah",), ("buildah",))
# What the official images of Python have of Debian, as far as the Dockerfiles use it.
BASE = debian.Group(
    "base",
    (
        *("python3-minimal", "libpython3-stdlib", "python3-pip", "python3-distutils", "ca-certificates", "tzdata"),
        *("bash", "dash", "coreutils", "findutils", "sed", "tar", "libc-bin"),
        *("gcc", "libc6-dev", "libpython3-dev"),  # which Dockerfiles would get by apt-get, that this base has no use for
    ),
    (),
)
# The machine's authorities, for pip behind a proxy that has one of its own. Not where root.sh would copy them from.
AUTHORITIES = "/run/authorities.pem"
OLD_LAYERS = 600  # a build makes about 20
COMPONENTS = ("operator", "sidecar", "cli")


def build(component: str, tag: str, folder: Path) -> Path:
    """Builds images/COMPONENT.Dockerfile and writes the image as an archive into a folder. Returns its path."""
    name = f"docker.io/spillway/{component}:{tag}"
    _drop_old_layers()
    say(f"building {name}")
    base = f"BASE=docker-archive:{_base()}"
    options = ["--layers", "--isolation=chroot", f"--volume={_authorities()}:{AUTHORITIES}:ro", f"--build-arg={base}"]
    _buildah("build", *options, f"--file=images/{component}.Dockerfile", f"--tag={name}", ".")
    archive = folder / f"{component}.tar"
    _buildah("push", name, f"docker-archive:{archive}:{name}")
    return archive


def compressed_bytes(component: str, tag: str, folder: Path) -> int:
    """What a registry would hold of an image that was built, and a node pull."""
    target = folder / f"{component}-oci"
    _buildah("push", f"docker.io/spillway/{component}:{tag}", f"oci:{target}")
    size = sum(file.stat().st_size for file in (target / "blobs").rglob("*") if file.is_file())
    shutil.rmtree(target)
    return size


def _base() -> Path:
    """The archive of the image that the others are built on; made once."""
    root = debian.unpacked(BASE, whole=True)

    def make(folder: Path) -> None:
        (root / "usr/bin/python").symlink_to("python3")
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
        (root / "etc/group").write_text("root:x:0:\n")
        bundle = b"".join(one.read_bytes() for one in sorted((root / "usr/share/ca-certificates").rglob("*.crt")))
        (root / "etc/ssl/certs/ca-certificates.crt").write_bytes(bundle)
        (root / "tmp").mkdir(exist_ok=True)
        one = images.layer(folder / "layer.tar", root)
        environment = {"PIP_CERT": AUTHORITIES, "PIP_ROOT_USER_ACTION": "ignore"}
        images.archive(folder / "base.tar", "localhost/spillway-e2e/base:1", [one], Settings((), "0:0", environment=environment))
        one.path.unlink()

    return kept(f"image-{root.name}", make) / "base.tar"


def _authorities() -> str:
    paths = ssl.get_default_verify_paths()
    for file in (os.environ.get("PIP_CERT"), paths.cafile, "/etc/ssl/certs/ca-certificates.crt"):
        if file and Path(file).exists():
            return file
    raise ClusterError("no file of certificate authorities on this machine, which pip needs: install ca-certificates")


def _buildah(*arguments: str) -> None:
    """Runs buildah in the project's root, with storage and settings of its own. Raises ClusterError with what it said."""
    storage = cache_folder() / "buildah"
    storage.mkdir(parents=True, exist_ok=True)
    (storage / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')  # nothing is pulled
    (storage / "registries.conf").write_text("")
    command = ["buildah", f"--root={storage}/root", f"--runroot={storage}/run", "--storage-driver=overlay"]
    command += [arguments[0], f"--signature-policy={storage}/policy.json", *arguments[1:]]
    if shutil.which("buildah") is None:
        over = f"mount -t overlay overlay -o lowerdir={debian.unpacked(BUILDER)}/usr:/usr /usr"
        command = ["unshare", "--mount", "--", "sh", "-c", f"{over} && exec {shlex.join(command)}"]
    environment = {**os.environ, "CONTAINERS_REGISTRIES_CONF": f"{storage}/registries.conf"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        said = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ClusterError(f"`buildah {shlex.join(arguments)}` failed (what it downloads needs the network):\n{said}")


def _drop_old_layers() -> None:
    storage = cache_folder() / "buildah"
    kept_images = storage / "root" / "overlay-images"
    if kept_images.exists() and len(list(kept_images.iterdir())) > OLD_LAYERS:
        shutil.rmtree(storage)
