"""Whatever breaks between the operator and its API server: traffic notices nothing, and what was edited meanwhile arrives when it is over.

The operator speaks through a relay that breaks in every way in which an API server, or the way to it, does. Traffic goes through a real
gateway to simulated engines all the while. Times are printed; their bounds are those of a busy machine.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.control_plane.processes import Bench, Operator, Proxy, bench, route, soon
from e2e.control_plane.relay import Relay, relay
from e2e.control_plane.traffic import untouched
from e2e.kubectl import Kubectl

BACK_SECONDS = 5.0
SLOW_MACHINE = 2.0


@dataclass(slots=True)
class Scene:
    """A leader behind a relay, a gateway, engines, and a route that is programmed."""

    parts: Bench
    relay: Relay
    operator: Operator
    gateway: Proxy

    @property
    def starts(self) -> int:
        return int(self.operator.json("/info")["source"]["kopf"]["starts"])

    def edit(self) -> None:
        """One route changed, one made, one deleted: past the relay."""
        kubectl = self.parts.kubectl
        changed = route()
        changed["spec"]["retries"] = {"budgetPercent": 37}
        kubectl.apply(changed, route("made"))
        kubectl("delete", "mroute", "old", "--timeout=10s")

    def edited(self) -> bool:
        """Whether the gateway runs it."""
        namespace, config = self.parts.kubectl.namespace, self.gateway.config
        chat = config.get(("route", f"{namespace}/chat"), {})
        there = chat.get("generation", 0) == 2 and ("route", f"{namespace}/made") in config
        return there and ("route", f"{namespace}/old") not in config

    def arrived(self, what: str) -> None:
        """What was edited is there within a few seconds of this moment."""
        began = time.monotonic()
        soon(self.edited, seconds=BACK_SECONDS * SLOW_MACHINE)
        print(f"; an edit was there {time.monotonic() - began:.1f} s after {what}")
        self.parts.kubectl("wait", "--for=condition=Programmed", "mroute/chat", "mroute/made", "--timeout=20s")


def kubeconfig_of(kubectl: Kubectl, folder: Path) -> Path:
    made = folder / "admin.kubeconfig"
    made.write_text(kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json"))
    return made


@pytest.fixture
def scene(ours: Kubectl, tmp_path: Path) -> Iterator[Scene]:
    with relay(kubeconfig_of(ours, tmp_path)) as between, bench(ours, tmp_path) as parts:
        operator = parts.operator(kubeconfig=between.kubeconfig(tmp_path / "relay.kubeconfig"))
        gateway = parts.gateway()
        parts.engines(2)
        ours.apply(route(), route("old"))
        ours("wait", "--for=condition=Programmed", "mroute/chat", "mroute/old", "--timeout=30s")
        soon(lambda: len(gateway.config.get(("endpoints", f"{ours.namespace}/fast"), {}).get("endpoints", [])) == 2)
        yield Scene(parts, between, operator, gateway)


def test_an_error_in_every_watch(scene: Scene) -> None:
    """Code 500, which ends kopf; and again, before it has been up for long."""
    with untouched(scene.gateway.port, what="ERROR 500"):
        for _ in range(3):
            scene.relay.end_watches(500)
            time.sleep(1)
        scene.edit()
        scene.arrived("it")
    assert 2 <= scene.starts <= 5


def test_a_version_that_is_gone(scene: Scene) -> None:
    with untouched(scene.gateway.port, what="410 Gone"):
        scene.relay.stall()
        scene.edit()  # no watch tells of it
        scene.relay.end_watches(410)
        scene.arrived("it")
    assert scene.starts == 1


@pytest.mark.parametrize("status", [503, 403])
def test_refusals(scene: Scene, status: int) -> None:
    with untouched(scene.gateway.port, what=f"{status} for 20 s"):
        scene.relay.refuse(status)
        time.sleep(10)
        scene.edit()
        time.sleep(10)
        assert not scene.edited()
        assert scene.operator.get("/healthz")[0] == 200
        scene.relay.mend()
        scene.arrived("its end")
    assert scene.starts <= 3


def test_watches_that_went_silent(scene: Scene) -> None:
    """Nothing ends it but the operator's own patience, which is 5 s."""
    with untouched(scene.gateway.port, what="silent watches"):
        scene.relay.stall()
        scene.edit()
        scene.arrived("it")
    assert scene.starts == 1


def test_a_leader_that_is_cut_off_does_not_keep_its_proxies(scene: Scene) -> None:
    """From the API server, that is, and not from the proxies. They move to the replica that can read what is edited."""
    standby = scene.parts.operator("b")
    soon(lambda: standby.ready)
    with untouched(scene.gateway.port, what="leader cut off"):
        scene.relay.cut()
        began = time.monotonic()
        scene.edit()
        soon(lambda: standby.leads, seconds=BACK_SECONDS * SLOW_MACHINE)
        print(f"; another led after {time.monotonic() - began:.1f} s", end="")
        scene.arrived("that")
        assert scene.gateway.version.startswith(f"{standby.epoch}.")
        scene.relay.mend()
        soon(lambda: scene.operator.json("/info")["cluster"]["election"]["holder"] == "b")
        assert standby.leads
    assert scene.starts <= 3


def test_a_leader_that_is_killed(scene: Scene) -> None:
    standby = scene.parts.operator("b")
    soon(lambda: standby.ready)
    with untouched(scene.gateway.port, what="leader killed"):
        scene.operator.kill()
        began = time.monotonic()
        scene.edit()
        soon(lambda: standby.leads, seconds=BACK_SECONDS * SLOW_MACHINE)
        print(f"; another led after {time.monotonic() - began:.1f} s", end="")
        scene.arrived("that")
    scene.parts.made.remove(scene.operator)


def test_the_only_replica_that_is_killed_and_started_again(scene: Scene) -> None:
    with untouched(scene.gateway.port, what="the only replica killed"):
        scene.operator.kill()
        scene.edit()
        time.sleep(2)
        scene.operator.start()
        scene.arrived("its start")
