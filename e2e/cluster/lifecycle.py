"""Up and down: the keeper started in the background and waited for, and ended again with nothing left."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from string import Template

from e2e.cluster import api, images, keeping, machine, programs
from e2e.cluster.keeper import PROGRAMS, STOPPED, keeper_of
from e2e.cluster.layout import PROJECT, ClusterError, Layout, Tier
from e2e.cluster.pki import write_pki
from e2e.cluster.programs import Programs

READY_SECONDS = 180.0
STOP_SECONDS = 15.0
# A cluster that nobody took down goes by itself.
DEFAULT_HOURS = 12.0


@dataclasses.dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that runs: where it is, and the programs to use it with."""

    layout: Layout
    programs: Programs
    keeper: subprocess.Popen[bytes] | None = None  # held by whoever started it for as long as it lives

    def environment(self) -> dict[str, str]:
        """What `kubectl` and `helm` need to speak to it. What they keep of an API is of this cluster, whose address another may have."""
        return {
            "KUBECONFIG": str(self.layout.kubeconfig),
            "KUBECACHEDIR": str(self.layout.state / "kubectl"),
            "PATH": self.programs.search_path,
        }


def up(state: Path, tier: Tier, *, hours: float | None = DEFAULT_HOURS) -> Cluster:
    """Starts a cluster and returns when it is ready. With `hours=None` it ends with this process, else after that time.

    Raises ClusterError with what to do, and leaves nothing running then.
    """
    if tier is Tier.NODE and (lacking := machine.lacks_for_nodes()):
        raise ClusterError(lacking)
    have = programs.have(tier)
    if state.exists():
        if keeper_of(state) is not None:
            raise ClusterError(f"a cluster runs in {state} already: `python -m e2e.cluster down --state {state}` first")
        remove(state)
    state.mkdir(parents=True)
    layout = Layout.fresh(state.resolve(), tier)
    layout.log.mkdir()
    write_pki(layout)
    layout.save()
    if tier is Tier.NODE:
        images.base_images(have)
        _stopped(layout, layout.second_node.name).touch()
    cluster = Cluster(layout, have, _start_keeper(layout, hours))
    try:
        _wait(cluster)
    except BaseException:
        down(state, keep=True)
        raise
    return cluster


@contextmanager
def held(state: Path, tier: Tier) -> Iterator[Cluster]:
    """A cluster for as long as the block runs; it also ends when this process is killed."""
    cluster = up(state, tier, hours=None)
    try:
        yield cluster
    finally:
        down(state)
        if cluster.keeper is not None and cluster.keeper.stdin is not None:
            cluster.keeper.stdin.close()
            cluster.keeper.wait()


def down(state: Path, *, keep: bool = False) -> None:
    """Ends the cluster of a state folder, if it runs, and removes the folder (its logs with it) unless told to keep it."""
    keeper = keeper_of(state)
    if keeper is not None:
        os.kill(keeper, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while keeper_of(state) is not None:
            if time.monotonic() > deadline:
                os.kill(keeper, signal.SIGKILL)
                deadline += STOP_SECONDS
            _collect(keeper)
            time.sleep(0.05)
    keeping.remove_remains(state)
    if not keep:
        remove(state)


def remove(state: Path) -> None:
    """Removes a state folder; only one that is ours, whatever path somebody gave."""
    if state.exists() and any(state.iterdir()) and not (state / "cluster.json").exists() and not (state / "pki").exists():
        raise ClusterError(f"{state} is not the state folder of a cluster: not removed")
    shutil.rmtree(state, ignore_errors=True)


def running(state: Path) -> Cluster:
    """The cluster that runs in a state folder. Raises ClusterError where there is none."""
    layout = Layout.load(state.resolve())
    if keeper_of(state) is None:
        raise ClusterError(f"the cluster in {state} has stopped; its logs are in {layout.log}")
    return Cluster(layout, programs.have(layout.tier))


def stop(cluster: Cluster, program: str) -> None:
    """Kills a program of the cluster and keeps it away until `start`."""
    _stopped(cluster.layout, _known(cluster, program)).touch()


def start(cluster: Cluster, program: str) -> None:
    """Lets a program run that `stop` took away."""
    _stopped(cluster.layout, _known(cluster, program)).unlink(missing_ok=True)


def restart(cluster: Cluster, program: str) -> None:
    """Kills a program and returns when it runs again."""
    for act, runs in ((stop, False), (start, True)):
        act(cluster, program)
        deadline = time.monotonic() + STOP_SECONDS
        while json.loads((cluster.layout.state / PROGRAMS).read_text())[program]["running"] is not runs:
            if time.monotonic() > deadline:
                raise ClusterError(f"{program} {'did not start' if runs else 'did not stop'}")
            time.sleep(0.05)


def add_node(cluster: Cluster) -> str:
    """Starts the second node of the node tier and returns its name when it is ready. `stop` takes its power away."""
    name = cluster.layout.second_node.name
    start(cluster, name)
    deadline = time.monotonic() + READY_SECONDS
    while not api.node_ready(cluster.layout, name):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"{name} was not ready after {READY_SECONDS:.0f} s; its logs are in {cluster.layout.second_node.folder}"
            )
        time.sleep(0.1)
    return name


def stopped(cluster: Cluster) -> set[str]:
    """The programs that are meant to be away."""
    return {one.name for one in (cluster.layout.state / STOPPED).iterdir()}


def _stopped(layout: Layout, program: str) -> Path:
    folder = layout.state / STOPPED
    folder.mkdir(exist_ok=True)
    return folder / program


def _known(cluster: Cluster, program: str) -> str:
    names = list(json.loads((cluster.layout.state / PROGRAMS).read_text()))
    if program not in names:
        raise ClusterError(f"there is no program {program} here, but {', '.join(names)}")
    return program


def _collect(process: int) -> None:
    """Takes in the keeper where it is a child of ours: until then it stays in the process table."""
    try:
        os.waitpid(process, os.WNOHANG)
    except ChildProcessError:
        return


def _start_keeper(layout: Layout, hours: float | None) -> subprocess.Popen[bytes]:
    lifeline = ["--lifeline"] if hours is None else ["--hours", str(hours)]
    with (layout.log / "keeper.log").open("ab") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "e2e.cluster", "_keep", "--state", str(layout.state), *lifeline],
            cwd=PROJECT,
            stdin=subprocess.PIPE if hours is None else subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    (layout.state / "keeper.pid").write_text(str(keeper.pid))
    return keeper


def _wait(cluster: Cluster) -> None:
    layout = cluster.layout
    steps: list[tuple[str, Callable[[Layout], bool]]] = [
        ("the API server", api.ready),
        ("the default service account", api.accounts_ready),
    ]
    if layout.tier is Tier.NODE:
        steps += [
            ("the node", lambda layout: api.node_ready(layout, layout.first_node.name)),
            ("what DNS is made of", lambda _: _apply_dns(cluster)),
            ("cluster DNS", api.dns_ready),
        ]
    deadline = time.monotonic() + READY_SECONDS
    for what, is_ready in steps:
        while not is_ready(layout):
            if cluster.keeper is not None and cluster.keeper.poll() is not None:
                raise ClusterError(f"the cluster did not start: {(layout.log / 'keeper.log').read_text().strip()}")
            if time.monotonic() > deadline:
                raise ClusterError(f"{what} was not ready after {READY_SECONDS:.0f} s; the logs are in {layout.log}")
            time.sleep(0.1)


def _apply_dns(cluster: Cluster) -> bool:
    text = Template((Path(__file__).parent / "dns.yaml").read_text())
    objects = text.substitute(image=images.COREDNS, address=cluster.layout.network.dns_service)
    done = subprocess.run(
        [cluster.programs.path("kubectl"), "apply", "--server-side", "--filename=-"],
        env={**os.environ, **cluster.environment()},
        input=objects,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ClusterError(f"CoreDNS was refused: {done.stderr.strip()}")
    return True
