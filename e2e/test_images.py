"""What the Dockerfiles make: what is in an image, what is not, and how large it is."""

import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest
from e2e.cluster import image_builds
from e2e.cluster.layout import PROJECT

from spillway_wire import VERSION


def content(archive: Path) -> tuple[dict[str, Any], set[str]]:
    """An image's configuration, and the paths in it."""
    with tarfile.open(archive) as outer:

        def read(name: str) -> Any:
            file = outer.extractfile(name)
            assert file is not None
            return file

        (manifest,) = json.load(read("manifest.json"))
        paths: set[str] = set()
        for layer in manifest["Layers"]:
            with tarfile.open(fileobj=read(layer)) as inner:
                paths.update(inner.getnames())
        return json.load(read(manifest["Config"])), paths


@pytest.mark.parametrize("component", image_builds.COMPONENTS)
def test_an_image_has_python_and_what_is_ours_and_no_tools(project_images: Path, component: str) -> None:
    configuration, paths = content(project_images / f"{component}.tar")
    assert configuration["config"]["User"] == "65532:65532"
    assert configuration["config"]["Entrypoint"][:2] == ["python", "-m"]
    assert "opt/spillway/spillway_wire/__init__.py" in paths
    programs = {path.rpartition("/")[2] for path in paths if re.match(r"(usr/)?(local/)?s?bin/", path)}
    assert programs - {"python"} == {name for name in programs if re.fullmatch(r"python3\.\d+", name)}
    assert not any("/pip/" in path or "/ensurepip/" in path for path in paths)


def test_the_proxy_of_an_image_runs_compiled(project_images: Path) -> None:
    _, paths = content(project_images / "sidecar.tar")
    assert any(re.fullmatch(r"opt/spillway/spillway_sidecar/proxy/attempt\.cpython-.*\.so", path) for path in paths)
    assert "opt/spillway/spillway_sidecar/proxy/attempt.py" in paths, "for tracebacks"


@pytest.mark.parametrize("component", image_builds.COMPONENTS)
def test_the_readme_says_how_large_images_are(project_images: Path, tmp_path: Path, component: str) -> None:
    row = re.search(rf"^\| spillway/{component} \| (\d+) MB \| (\d+) MB \|", (PROJECT / "README.md").read_text(), re.MULTILINE)
    assert row is not None
    sizes = (project_images / f"{component}.tar").stat().st_size, image_builds.compressed_bytes(component, VERSION, tmp_path)
    assert [int(told) for told in row.groups()] == pytest.approx([size / 1e6 for size in sizes], rel=0.1)
