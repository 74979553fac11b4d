"""The Lease: who may take it when, epochs that only rise, and terms that end by themselves."""

from __future__ import annotations

import asyncio
import copy
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spillway_operator.kube.api import ApiError, UnreachableError
from spillway_operator.kube.lease import (
    Action,
    Election,
    LeaseTiming,
    Seen,
    decide,
    epoch_of,
    held_lease,
    holder_of,
    seen_of,
)

MOMENT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
TIMING = LeaseTiming()


def lease(holder: str = "a", epoch: int = 5, renewed: str = "t0", duration: int = 4) -> dict[str, Any]:
    return {
        "metadata": {"name": "l", "resourceVersion": "1", "annotations": {"spillway.dev/epoch": str(epoch), "other": "kept"}},
        "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": duration, "leaseTransitions": 3},
    }


def _decide(found: dict[str, Any] | None, *, epoch: int | None = None, waited: float = 0.0) -> Action:
    seen = None if found is None else Seen(mark=seen_of(found, None, 0.0).mark, since=100.0 - waited)
    return decide(found, "me", epoch, seen, 100.0, TIMING)


def test_what_is_done_about_a_lease():
    assert _decide(None) is Action.CREATE
    assert _decide(lease("")) is Action.TAKE
    assert _decide(lease("me", epoch=5), epoch=5) is Action.RENEW
    assert _decide(lease("me", epoch=5), epoch=4) is Action.TAKE  # another process of our name
    assert _decide(lease("me", epoch=5)) is Action.TAKE  # from before our start
    assert _decide(lease("other"), waited=3.9) is Action.WAIT
    assert _decide(lease("other"), waited=4.0) is Action.TAKE
    assert _decide(lease("other", duration=10), waited=4.0) is Action.WAIT  # the holder's own promise counts


def test_patience_starts_anew_with_each_renewal():
    first = seen_of(lease("other", renewed="t0"), None, 10.0)
    assert seen_of(lease("other", renewed="t0"), first, 12.0).since == 10.0
    assert seen_of(lease("other", renewed="t1"), first, 12.0).since == 12.0


@pytest.mark.parametrize("before", [None, lease("other", epoch=7), lease("", epoch=10**15)])
def test_a_new_term_has_a_higher_epoch(before: dict[str, Any] | None):
    made = held_lease(before, namespace="n", name="l", identity="me", renew_of=None, moment=MOMENT, timing=TIMING)
    assert epoch_of(made) > epoch_of(before)
    assert epoch_of(made) >= MOMENT.timestamp() * 1000
    assert holder_of(made) == "me"
    if before is not None:
        assert made["spec"]["leaseTransitions"] == 4
        assert made["metadata"]["annotations"]["other"] == "kept"
        assert made["metadata"]["resourceVersion"] == "1"


def test_a_renewal_keeps_the_epoch():
    made = held_lease(lease("me"), namespace="n", name="l", identity="me", renew_of=5, moment=MOMENT, timing=TIMING)
    assert epoch_of(made) == 5
    assert made["spec"]["leaseTransitions"] == 3


class LeaseServer:
    """The API server as far as one Lease goes."""

    def __init__(self) -> None:
        self.document: dict[str, Any] | None = None
        self.version = 0
        self.away = False
        self.writes = 0

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        if self.away:
            raise UnreachableError("no answer")
        if method == "GET":
            if self.document is None:
                raise ApiError(404, "NotFound", "no lease")
            return copy.deepcopy(self.document)
        stale = (
            self.document is not None and body["metadata"].get("resourceVersion") != self.document["metadata"]["resourceVersion"]
        )
        if (method == "POST" and self.document is not None) or (method == "PUT" and (self.document is None or stale)):
            raise ApiError(409, "Conflict", "it was changed")
        self.version += 1
        self.writes += 1
        self.document = copy.deepcopy(body)
        self.document["metadata"]["resourceVersion"] = str(self.version)
        return copy.deepcopy(self.document)


class Replica:
    """An election, and what it was told."""

    def __init__(self, server: LeaseServer, name: str, clock: list[float]) -> None:
        self.told: list[str] = []
        self.spare_seconds = 0.0
        self.clock = clock
        self.election = Election(
            server,  # type: ignore[arg-type]
            self,
            namespace="n",
            name="l",
            identity=name,
            clock=lambda: clock[0],
            wall_clock=lambda: MOMENT + timedelta(seconds=clock[0]),
        )

    def on_term(self, epoch: int) -> None:
        self.told.append("term")

    def on_lost(self, reason: str, spare_seconds: float) -> None:
        self.told.append("lost")
        self.spare_seconds = spare_seconds

    @property
    def leads(self) -> bool:
        return self.election.leads(self.clock[0])

    async def turn(self) -> None:
        """What `run` does between two sleeps."""
        await self.election._attempt()
        self.election._expire()


def assert_leads_anew(replica: Replica, before: int | None) -> None:
    """It lost its first term, of that epoch, and has a second one."""
    assert replica.leads
    assert replica.told == ["term", "lost", "term"]
    assert replica.election.epoch is not None
    assert before is not None
    assert replica.election.epoch > before


@pytest.fixture
async def pair() -> tuple[LeaseServer, Replica, Replica, list[float]]:
    server, clock = LeaseServer(), [0.0]
    one, two = Replica(server, "one", clock), Replica(server, "two", clock)
    await one.turn()
    await two.turn()
    return server, one, two, clock


Pair = tuple[LeaseServer, Replica, Replica, list[float]]


async def test_the_first_one_leads_and_the_second_stands_by(pair: Pair):
    _, one, two, clock = pair
    assert (one.leads, two.leads) == (True, False)
    for _ in range(10):
        clock[0] += 1.0
        await one.turn()
        await two.turn()
    assert one.told == ["term"]
    assert two.told == []
    assert two.election.info()["holder"] == "one"


async def test_a_leader_that_is_gone_is_replaced_within_five_seconds(pair: Pair):
    _, one, two, clock = pair
    epoch = one.election.epoch
    while not two.leads:
        clock[0] += TIMING.look_seconds
        await two.turn()
    assert clock[0] <= 5.0
    assert two.election.epoch is not None
    assert epoch is not None
    assert two.election.epoch > epoch


async def test_a_leader_stops_by_itself_before_another_may_begin(pair: Pair):
    server, one, two, clock = pair
    server.away = True
    led_until = 0.0
    for _ in range(80):
        clock[0] += 0.05
        if one.leads:
            led_until = clock[0]
        await one.turn()
    assert led_until < TIMING.deadline_seconds < TIMING.duration_seconds
    assert one.told == ["term", "lost"]
    assert led_until + one.spare_seconds < TIMING.duration_seconds
    server.away = False
    await two.turn()
    assert not one.leads


async def test_a_leader_that_was_stopped_in_its_sleep_does_not_lead_when_it_wakes(pair: Pair):
    """No turn runs between: the clock alone tells."""
    _, one, _, clock = pair
    clock[0] += 60.0
    assert not one.leads


async def test_a_renewal_that_comes_after_the_term_does_not_bring_it_back(pair: Pair):
    """Who asked in between was told that nobody leads, and may have dropped what it was about to do: only a new term makes up for that."""
    _, one, _, clock = pair
    epoch = one.election.epoch
    clock[0] += TIMING.deadline_seconds + 0.1
    await one.turn()
    assert not one.leads
    assert one.spare_seconds > TIMING.deadline_seconds, "nobody else can take what has just been renewed"
    await one.turn()
    assert_leads_anew(one, epoch)


async def test_an_outage_that_nobody_used_ends_in_a_new_term_of_the_same_replica(pair: Pair):
    server, one, _, clock = pair
    epoch = one.election.epoch
    server.away = True
    for _ in range(60):
        clock[0] += 1.0
        await one.turn()
    server.away = False
    await one.turn()
    assert_leads_anew(one, epoch)


async def test_of_two_that_try_one_gets_it(pair: Pair):
    server, one, two, clock = pair
    three = Replica(server, "three", clock)
    await three.turn()
    clock[0] += 10.0
    await asyncio.gather(two.turn(), three.turn())
    assert [two.leads, three.leads].count(True) == 1
    await one.turn()
    assert not one.leads
    assert one.told[-1] == "lost"


async def test_a_lease_that_is_let_go_is_taken_at_once(pair: Pair):
    server, one, two, clock = pair
    await one.election.release()
    assert not one.leads
    clock[0] += TIMING.look_seconds
    await two.turn()
    assert two.leads
    assert holder_of(server.document) == "two"


async def test_a_lease_that_is_deleted_begins_a_term_with_a_higher_epoch(pair: Pair):
    server, one, _, clock = pair
    epoch = one.election.epoch
    server.document = None
    clock[0] += 1.0
    await one.turn()
    assert one.leads
    assert one.election.epoch is not None
    assert epoch is not None
    assert one.election.epoch > epoch


async def test_somebody_elses_label_on_the_lease_ends_no_term(pair: Pair):
    server, one, _, clock = pair
    assert server.document is not None
    server.document["metadata"] |= {"labels": {"x": "y"}, "resourceVersion": "changed"}
    clock[0] += 1.0
    await one.turn()
    assert one.told == ["term"]
    assert server.document["metadata"]["labels"] == {"x": "y"}
