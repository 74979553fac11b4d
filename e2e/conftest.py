"""The clusters that the tests run on.

With KUBECONFIG set it is that cluster, whatever it is; else one of the project's own, made for this run and gone after it.
Every test has a namespace of its own. Tests that need pods which run ask for `on_node`.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from e2e.cluster import image_builds, lifecycle, machine, node, programs
from e2e.cluster.layout import Tier
from e2e.kubectl import Kubectl

from spillway_wire import VERSION

CRDS = Path(__file__).resolve().parents[1] / "crds"


SETUP_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whichever test is the first to need them waits for clusters and images, which the first time takes minutes."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            own = item.get_closest_marker("timeout")
            item.add_marker(pytest.mark.timeout(SETUP_SECONDS + (own.args[0] if own else 0)), append=False)


@contextmanager
def _namespace(kubectl: Kubectl) -> Iterator[Kubectl]:
    name = f"e2e-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    try:
        yield kubectl.within(name)
    finally:
        kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def kubectl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """kubectl, as cluster-admin, on a cluster that has a control plane at least."""
    if os.environ.get("KUBECONFIG"):
        yield Kubectl({"PATH": programs.clients().search_path})
        return
    with lifecycle.held(tmp_path_factory.mktemp("cluster") / "state", Tier.CONTROL_PLANE) as cluster:
        yield Kubectl(cluster.environment())


@pytest.fixture(scope="session")
def crds(kubectl: Kubectl) -> Iterator[Kubectl]:
    """Kubectl on a cluster that has our kinds; they are removed after the run from a cluster that did not have them before."""
    there = kubectl("get", "crd", "--output=name")
    kubectl("apply", "--server-side", f"--filename={CRDS}")
    kubectl("wait", "--for=condition=Established", "--timeout=30s", f"--filename={CRDS}")
    yield kubectl
    if "spillway.dev" not in there:
        kubectl("delete", "--wait=false", f"--filename={CRDS}")


@pytest.fixture
def ours(crds: Kubectl) -> Iterator[Kubectl]:
    """Kubectl in a fresh namespace of a cluster that has our kinds."""
    with _namespace(crds) as made:
        yield made


@pytest.fixture(scope="session")
def node_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lifecycle.Cluster]:
    """A cluster whose pods run, of the project's own: made for this run, or the one of the state folder E2E_NODE_STATE."""
    if os.environ.get("KUBECONFIG"):
        pytest.skip("images are loaded into a cluster of the project's own only: unset KUBECONFIG to have the node tier")
    if lacking := machine.lacks_for_nodes():
        pytest.skip(lacking)
    if os.environ.get("E2E_NODE_STATE"):
        yield lifecycle.running(Path(os.environ["E2E_NODE_STATE"]))
        return
    with lifecycle.held(tmp_path_factory.mktemp("node") / "state", Tier.NODE) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def project_images(node_cluster: lifecycle.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Our images, built from the Dockerfiles and known to the nodes; the folder with their archives."""
    folder = tmp_path_factory.mktemp("images")
    for component in image_builds.COMPONENTS:
        node.load(node_cluster.layout, node_cluster.programs, image_builds.build(component, VERSION, folder))
    return folder


@pytest.fixture
def on_node(node_cluster: lifecycle.Cluster) -> Iterator[Kubectl]:
    """Kubectl in a fresh namespace of the cluster whose pods run."""
    with _namespace(Kubectl(node_cluster.environment())) as made:
        yield made
