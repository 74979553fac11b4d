"""The cluster itself: it comes, loses programs when told to, and goes without a trace."""

import os
import signal
import time
from pathlib import Path

import pytest
from e2e.cluster import api, lifecycle
from e2e.cluster.layout import ClusterError, Layout, Tier
from e2e.kubectl import eventually


def processes_of(state: Path) -> list[str]:
    """Command lines of processes that name a state folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_text()
        except OSError:  # ended meanwhile
            continue
        if str(state) in text and int(entry.parent.name) != os.getpid():
            found.append(text.replace("\0", " "))
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def test_a_cluster_comes_and_goes_without_a_trace(state: Path) -> None:
    with lifecycle.held(state, Tier.CONTROL_PLANE) as cluster:
        assert api.ready(cluster.layout)
        assert len(processes_of(state)) >= 5, "four programs and their keeper"
        with pytest.raises(ClusterError, match=r"runs in \S+ already"):
            lifecycle.up(state, Tier.CONTROL_PLANE)
    assert not state.exists()
    assert processes_of(state) == []


def test_a_killed_keeper_takes_its_programs_along(state: Path) -> None:
    with lifecycle.held(state, Tier.CONTROL_PLANE) as cluster:
        assert cluster.keeper is not None
        os.kill(cluster.keeper.pid, signal.SIGKILL)
        cluster.keeper.wait()
        eventually(lambda: processes_of(state) == [], seconds=5)
        with pytest.raises(ClusterError, match="has stopped"):
            lifecycle.running(state)


def test_a_cluster_ends_with_the_process_that_holds_it(state: Path) -> None:
    with lifecycle.held(state, Tier.CONTROL_PLANE) as cluster:
        assert cluster.keeper is not None
        assert cluster.keeper.stdin is not None
        cluster.keeper.stdin.close()  # as the kernel does when the process is killed
        eventually(lambda: processes_of(state) == [], seconds=5)


def test_the_api_server_can_be_taken_away_and_given_back(state: Path) -> None:
    with lifecycle.held(state, Tier.CONTROL_PLANE) as cluster:
        lifecycle.stop(cluster, "kube-apiserver")
        eventually(lambda: not api.ready(cluster.layout), seconds=5)
        time.sleep(0.5)
        assert not api.ready(cluster.layout), "it stays away"
        lifecycle.start(cluster, "kube-apiserver")
        eventually(lambda: api.ready(cluster.layout), seconds=30)
        with pytest.raises(ClusterError, match="no program kubelet here, but etcd"):
            lifecycle.stop(cluster, "kubelet")


def test_what_is_not_a_clusters_state_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(ClusterError, match="not removed"):
        lifecycle.down(tmp_path)
    assert (tmp_path / "mine").exists()
    with pytest.raises(ClusterError, match="no cluster in"):
        Layout.load(tmp_path)
