"""Two replicas: one leads, the other is warm and takes over, and no proxy is told anything by one whose term is over."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.control_plane.processes import (
    STOP_SECONDS,
    Bench,
    Operator,
    Proxy,
    backend,
    bench,
    condition,
    events,
    route,
    soon,
)
from e2e.kubectl import Kubectl
from tests.fakes.ports import free_port

TAKEOVER_SECONDS = 5.0


@pytest.fixture
def parts(ours: Kubectl, tmp_path: Path) -> Iterator[Bench]:
    with bench(ours, tmp_path) as made:
        yield made


@pytest.fixture
def pair(parts: Bench) -> tuple[Operator, Operator, Proxy]:
    """Leader, standby and a gateway, with a route programmed."""
    leader = parts.operator("a")
    soon(lambda: leader.leads)
    standby, gateway = parts.operator("b"), parts.gateway()
    soon(lambda: standby.ready)
    assert not standby.leads
    parts.kubectl.apply(backend(), route())
    parts.kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=20s")
    return leader, standby, gateway


def test_a_killed_leader_is_replaced(parts: Bench, pair: tuple[Operator, Operator, Proxy]) -> None:
    leader, standby, gateway = pair
    before = condition(parts.kubectl, "mroute", "chat", "Programmed")
    epoch = leader.epoch
    leader.kill()
    killed_at = time.monotonic()
    soon(lambda: standby.leads, seconds=TAKEOVER_SECONDS)
    took = time.monotonic() - killed_at
    assert standby.epoch > epoch
    soon(lambda: gateway.connected and gateway.version.startswith(f"{standby.epoch}."))
    print(f"led after {took:.1f} s, the proxy was told after {time.monotonic() - killed_at:.1f} s")
    time.sleep(4)  # the new leader's first statuses are out
    after = condition(parts.kubectl, "mroute", "chat", "Programmed")
    assert after == before  # nothing flapped
    assert len(events(parts.kubectl, "Programmed")) == 1
    parts.kubectl.apply(route("second"))
    parts.kubectl("wait", "--for=condition=Programmed", "mroute/second", "--timeout=20s")


def test_a_leader_that_is_told_to_stop_hands_over_at_once(pair: tuple[Operator, Operator, Proxy]) -> None:
    leader, standby, _ = pair
    epoch = leader.epoch
    told_at = time.monotonic()
    leader.signal(signal.SIGTERM)
    soon(lambda: standby.leads, seconds=2.5)
    print(f"led after {time.monotonic() - told_at:.1f} s")
    assert standby.epoch > epoch
    assert leader.child is not None
    assert leader.child.wait(STOP_SECONDS) == 0
    print(f"ended after {time.monotonic() - told_at:.1f} s")


def test_a_leader_that_slept_through_its_term_stands_by(parts: Bench) -> None:
    leader = parts.operator("a", "--discovery-port", str(free_port()))
    soon(lambda: leader.leads)
    standby, gateway = parts.operator("b"), parts.gateway()
    soon(lambda: standby.ready)
    leader.signal(signal.SIGSTOP)
    soon(lambda: standby.leads, seconds=TAKEOVER_SECONDS)
    parts.kubectl.apply(backend(), route())
    parts.kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=20s")
    leader.signal(signal.SIGCONT)
    soon(lambda: leader.get("/leaderz")[0] == 503)
    soon(lambda: leader.json("/info")["cluster"]["election"]["holder"] == "b")
    time.sleep(2)
    assert standby.leads
    assert gateway.version.startswith(f"{standby.epoch}.")


def test_a_deleted_lease_does_not_send_the_epoch_back(parts: Bench) -> None:
    operator = parts.operator("a")
    gateway = parts.gateway()
    soon(lambda: operator.leads)
    epoch = operator.epoch
    parts.kubectl("delete", "lease", "spillway-operator")
    soon(lambda: operator.epoch > epoch)
    parts.kubectl.apply(backend(), route())
    parts.kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=20s")
    assert gateway.version.startswith(f"{operator.epoch}.")
