"""One proxy's session: every message and deadline, in and out of turn."""

from __future__ import annotations

import msgspec
import pytest

from spillway_operator.discovery.auth import ANYONE, Identity, LoopbackAuthenticator, UnauthenticatedError
from spillway_operator.discovery.session import CloseReason, Event, Limits, Session
from spillway_wire.messages import Ack, Bye, Fault, FaultReason, Hello, Nack, Node, Pong, Report
from spillway_wire.names import Role

NODE = Node(id="fast-0", role=Role.SIDECAR, boot_id="boot-1", namespace="ml", pod="fast-0")


def session(held: str | None = None) -> Session:
    made = Session(opened_at=100.0, limits=Limits())
    assert made.receive(Hello(node=NODE, resume_version=held), 100.0) is Event.JOINED
    return made


def nack(nonce: str, reason: str = "DanglingReference", version: str | None = "1.1") -> Nack:
    return Nack(version=version, nonce=nonce, errors=(Fault(path="route/ml/chat", reason=reason, message="no"),))


@pytest.mark.parametrize(
    "message", [Ack(version="1.1", nonce="1"), nack("1"), Report(boot_id="boot-1", sequence=1), Pong(id=1), Bye()], ids=repr
)
def test_nothing_counts_before_the_hello(message: Ack | Nack | Report | Pong | Bye) -> None:
    """The first frame says who speaks."""
    assert Session(opened_at=0.0, limits=Limits()).receive(message, 0.0) is CloseReason.HELLO_EXPECTED


def test_a_second_hello_closes() -> None:
    """A connection is one node for its life."""
    assert session().receive(Hello(node=NODE), 101.0) is CloseReason.SECOND_HELLO


def test_the_hello_has_a_deadline() -> None:
    """A connection that says nothing is not kept."""
    silent = Session(opened_at=100.0, limits=Limits(hello_seconds=5.0))
    assert silent.lapse(105.0) is None
    assert silent.lapse(105.1) is CloseReason.HELLO_TIMEOUT


def test_one_update_at_a_time() -> None:
    """While one is unanswered nothing is wanted; the answer makes room for the newest."""
    one = session()
    assert one.wants("1.1")
    one.offer("1.1", "n1", full=True, now=100.0)
    assert not one.wants("1.2")
    assert one.receive(Ack(version="1.1", nonce="n1"), 101.0) is Event.ACKED
    assert one.held == "1.1"
    assert not one.wants("1.1")
    assert one.wants("1.2")


def test_a_known_version_is_not_sent_again_on_resume() -> None:
    """A proxy that holds the newest wants nothing."""
    assert not session(held="1.1").wants("1.1")


@pytest.mark.parametrize("stale", [Ack(version="1.1", nonce="n0"), Ack(version="1.0", nonce="n1"), nack("n0")], ids=repr)
def test_stale_answers_change_nothing(stale: Ack | Nack) -> None:
    """An answer to another update than the one on its way is only counted."""
    one = session()
    one.offer("1.1", "n1", full=True, now=100.0)
    assert one.receive(stale, 101.0) is Event.STALE_NONCE
    assert (one.held, one.refusal, one.wants("1.1")) == (None, None, False)
    assert one.receive(Ack(version="1.1", nonce="n1"), 101.0) is Event.ACKED
    assert one.receive(Ack(version="1.1", nonce="n1"), 101.0) is Event.STALE_NONCE


def test_a_refused_version_is_not_offered_again_and_the_next_one_is() -> None:
    """The refusal is kept until a later ACK overtakes it."""
    one = session()
    one.offer("1.1", "n1", full=True, now=100.0)
    one.receive(Ack(version="1.1", nonce="n1"), 100.0)
    one.offer("1.2", "n2", full=False, now=101.0)
    assert one.receive(nack("n2"), 102.0) is Event.NACKED
    assert one.held == "1.1"
    assert not one.wants("1.2")
    assert one.wants("1.3")
    assert one.refusal is not None
    assert (one.refusal.version, one.refusal.at) == ("1.2", 102.0)
    one.offer("1.3", "n3", full=False, now=103.0)
    one.receive(Ack(version="1.3", nonce="n3"), 103.0)
    assert one.refusal is None


def test_changes_that_did_not_fit_are_followed_by_everything() -> None:
    """`BaseMismatch` means: send a full update of the same version; on a full one it would be a refusal."""
    one = session(held="1.1")
    one.offer("1.2", "n1", full=False, now=100.0)
    one.receive(nack("n1", FaultReason.BASE_MISMATCH, version="0.9"), 100.0)
    assert (one.held, one.refusal) == (None, None)
    assert one.wants("1.2")
    one.offer("1.2", "n2", full=True, now=100.0)
    one.receive(nack("n2", FaultReason.BASE_MISMATCH, version="0.9"), 100.0)
    assert not one.wants("1.2")


def test_a_refusal_is_forgiven_for_its_own_reason_only() -> None:
    """When the operator has settled, only those who missed endpoints are asked again."""
    one = session()
    one.offer("1.1", "n1", full=True, now=100.0)
    one.receive(nack("n1", FaultReason.ENDPOINTS_LOST, version="1.0"), 100.0)
    assert not one.forgive(FaultReason.STALE_EPOCH)
    assert not one.wants("1.1")
    assert one.forgive(FaultReason.ENDPOINTS_LOST)
    assert one.wants("1.1")
    assert not session().forgive(FaultReason.ENDPOINTS_LOST)


def test_an_update_without_an_answer_closes_the_stream() -> None:
    """A proxy that does not read or does not think is cut off; it holds up nobody meanwhile."""
    one = session()
    one.offer("1.1", "n1", full=True, now=100.0)
    one.pinged(1, 200.0, 100.0)
    one.receive(Pong(id=1), 100.0)
    assert one.lapse(115.0) is None
    assert one.lapse(115.1) is CloseReason.ACK_TIMEOUT


def test_pings_come_at_their_time_and_ask_for_a_pong() -> None:
    """The first at once, with the router count; a missing pong closes; a late one of an older ping does not count."""
    one = session()
    assert one.lapse(100.0) is Event.PING_DUE
    one.pinged(1, 105.0, 100.0)
    assert one.lapse(105.0) is None
    assert one.receive(Pong(id=0), 105.0) is Event.PONGED
    assert one.lapse(115.1) is CloseReason.PONG_TIMEOUT
    one.receive(Pong(id=1), 115.0)
    assert one.lapse(115.1) is Event.PING_DUE


def test_reports_are_ordered_and_belong_to_the_boot_that_said_hello() -> None:
    """Another boot id or a sequence that does not rise is refused."""
    one = session()
    assert one.receive(Report(boot_id="boot-1", sequence=3), 100.0) is Event.REPORTED
    assert one.receive(Report(boot_id="boot-1", sequence=3), 100.0) is Event.REPORT_OUT_OF_ORDER
    assert one.receive(Report(boot_id="boot-0", sequence=4), 100.0) is Event.REPORT_OF_OTHER_BOOT
    assert one.receive(Report(boot_id="boot-1", sequence=4), 100.0) is Event.REPORTED


def test_bye_drains() -> None:
    """And can be taken back."""
    one = session()
    assert one.receive(Bye(reason="SIGTERM"), 100.0) is Event.DRAINING
    assert one.draining
    one.receive(Bye(draining=False), 100.0)
    assert not one.draining


def test_a_flood_closes() -> None:
    """The bound is for each second, not for the life of the stream."""
    one = Session(opened_at=0.0, limits=Limits(messages_per_second=3))
    one.receive(Hello(node=NODE), 0.0)
    for second in range(1, 4):
        assert [one.receive(Pong(id=0), second + 0.1) for _ in range(3)] == [Event.PONGED] * 3
    assert one.receive(Pong(id=0), 3.5) is CloseReason.FLOOD


def test_an_identity_speaks_for_its_own_pod() -> None:
    """What is proven must match, the node's id too, which is that of an endpoint; what is left open may be anything."""
    own = msgspec.structs.replace(NODE, id="ml/fast-0")
    assert ANYONE.may_speak_for(NODE)
    assert Identity(namespace="ml", pod="fast-0").may_speak_for(own)
    assert not Identity(namespace="ml", pod="fast-0").may_speak_for(NODE)
    assert not Identity(namespace="ml", pod="fast-0").may_speak_for(msgspec.structs.replace(own, id="ml/fast-1"))
    assert not Identity(namespace="ml", pod="fast-1").may_speak_for(own)
    assert not Identity(namespace="other", pod="fast-0").may_speak_for(own)


def test_only_a_gateway_is_told_of_every_namespace() -> None:
    """Its namespace is left open in the hello; its id still is its pod's."""
    everywhere = msgspec.structs.replace(NODE, id="ml/fast-0", namespace="")
    assert Identity(namespace="ml", pod="fast-0", everywhere=True).may_speak_for(everywhere)
    assert not Identity(namespace="ml", pod="fast-0").may_speak_for(everywhere)
    assert not Identity(namespace="ml", pod="fast-0", everywhere=True).may_speak_for(
        msgspec.structs.replace(everywhere, namespace="other")
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "::1"])
async def test_loopback_peers_are_accepted(host: str) -> None:
    """Standalone is one machine."""
    assert await LoopbackAuthenticator().identify({}, host) == ANYONE


@pytest.mark.parametrize("host", ["10.0.0.1", "", "localhost.example.com", "::ffff:10.0.0.1"])
async def test_other_peers_are_refused(host: str) -> None:
    """Nobody from elsewhere, and no names."""
    with pytest.raises(UnauthenticatedError):
        await LoopbackAuthenticator().identify({}, host)
