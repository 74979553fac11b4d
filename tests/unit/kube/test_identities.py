"""Tokens, certificates and the gate: who is let in, and who may publish."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme
from tests.fakes.operator_core import FakePublisher

from spillway_operator.discovery.auth import Identity, TokenAuthenticator, UnauthenticatedError
from spillway_operator.discovery.gate import LeaderGate
from spillway_operator.discovery.tls import CertificateFiles, ServerCertificate
from spillway_operator.kube.api import UnreachableError
from spillway_operator.kube.reviews import Reviewed, TokenReviews, reviewed
from spillway_operator.snapshot.state import EncodedResource, SnapshotState
from spillway_wire.snapshot import Weights


def review(**changes: Any) -> dict[str, Any]:
    user = {
        "username": "system:serviceaccount:ml:engine",
        "extra": {"authentication.kubernetes.io/pod-name": ["one"], "authentication.kubernetes.io/pod-uid": ["u"]},
    }
    return {"status": {"authenticated": True, "audiences": ["spillway"], "user": user, **changes}}


def test_a_good_token_names_its_pod():
    assert reviewed(review(), "spillway") == Reviewed(namespace="ml", service_account="engine", pod="one")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"status": None},
        review(authenticated=False),
        review(authenticated="true"),
        review(audiences=["another"]),
        review(audiences=None),
        review(user={"username": "jane", "extra": {"authentication.kubernetes.io/pod-name": ["one"]}}),
        review(user={"username": "system:serviceaccount:ml:engine"}),
        review(
            user={"username": "system:serviceaccount:ml:engine", "extra": {"authentication.kubernetes.io/pod-name": ["a", "b"]}}
        ),
        review(user={"username": "system:serviceaccount:ml", "extra": {"authentication.kubernetes.io/pod-name": ["one"]}}),
    ],
)
def test_whatever_is_not_plainly_good_is_refused(answer: Any):
    found = reviewed(answer, "spillway")
    assert found.refusal
    assert not found.pod


class Server:
    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.answer: Any = review()

    async def request(self, method: str, path: str, body: Any, **_: Any) -> Any:
        self.asked.append(body)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_an_answer_is_remembered_for_a_while():
    server, now = Server(), [0.0]
    reviews = TokenReviews(server, audience="spillway", clock=lambda: now[0], good_seconds=60, bad_seconds=5)  # type: ignore[arg-type]
    for _ in range(3):
        assert (await reviews.review("good")).pod == "one"
    assert server.asked == [
        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "good", "audiences": ["spillway"]}}
    ]
    now[0] = 61.0
    await reviews.review("good")
    assert len(server.asked) == 2
    server.answer = review(authenticated=False)
    await reviews.review("bad")
    await reviews.review("bad")
    now[0] = 67.0
    await reviews.review("bad")
    assert len(server.asked) == 4
    assert "good" not in repr(reviews.__dict__["_known"])  # by its hash alone


async def test_nobody_is_let_in_while_tokens_cannot_be_reviewed():
    server = Server()
    server.answer = UnreachableError("away")
    reviews = TokenReviews(server, audience="spillway", clock=lambda: 0.0)  # type: ignore[arg-type]
    authenticator = TokenAuthenticator(reviews.review, gateways=())
    with pytest.raises(UnauthenticatedError, match="could not be reviewed"):
        await authenticator.identify({"Authorization": "Bearer x"}, "10.0.0.1")
    server.answer = review()
    assert (await authenticator.identify({"Authorization": "bearer x"}, "10.0.0.1")).pod == "one"


async def test_a_token_is_asked_for_and_a_gateway_is_told_of_everything():
    async def prove(token: str) -> Reviewed:
        return Reviewed(refusal="no") if token == "bad" else Reviewed("ml", token, "one")

    authenticator = TokenAuthenticator(prove, gateways=[("ml", "gateway")])
    for headers in ({}, {"Authorization": ""}, {"Authorization": "Basic eA=="}, {"Authorization": "Bearer "}):
        with pytest.raises(UnauthenticatedError, match="no bearer token"):
            await authenticator.identify(headers, "")
    with pytest.raises(UnauthenticatedError, match="no"):
        await authenticator.identify({"Authorization": "Bearer bad"}, "")
    assert await authenticator.identify({"Authorization": "Bearer engine"}, "") == Identity("ml", "one")
    assert await authenticator.identify({"Authorization": "Bearer gateway"}, "") == Identity("ml", "one", everywhere=True)


def write(authority: trustme.CA, folder: Path) -> CertificateFiles:
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    return CertificateFiles(folder / "tls.crt", folder / "tls.key")


def test_a_certificate_is_followed_and_a_broken_one_is_not_taken(tmp_path: Path):
    authority = trustme.CA()
    made = ServerCertificate(write(authority, tmp_path))
    assert made.context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert not made.reload()
    write(authority, tmp_path)
    assert made.reload()
    trustme.CA().issue_cert("localhost").private_key_pem.write_to_path(tmp_path / "tls.key")  # does not fit
    assert not made.reload()
    (tmp_path / "tls.crt").unlink()
    assert not made.reload()
    assert made.info()["trouble"]
    write(authority, tmp_path)
    assert made.reload()
    assert made.info() == {"certificate": str(tmp_path / "tls.crt"), "loads": 3, "trouble": ""}


def test_files_that_cannot_be_used_at_the_start_are_an_error(tmp_path: Path):
    (tmp_path / "tls.crt").write_text("x")
    (tmp_path / "tls.key").write_text("x")
    with pytest.raises(OSError, match=r"PEM|start line|no certificate"):
        ServerCertificate(CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key"))


SAME, MOVING = ("weights", "ml/chat"), ("weights", "ml/other")


def content(key: tuple[str, str], mark: str) -> EncodedResource:
    return EncodedResource(key=key, resource=Weights(name=key[1], rules=()), data=b"", hash=mark)


class Gate:
    """A gate with a clock and a timer that the test moves."""

    def __init__(self) -> None:
        self.carrier = FakePublisher()
        self.leads = True
        self.now = 0.0
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.gate = LeaderGate(
            self.carrier,
            leads=lambda: self.leads,
            clock=lambda: self.now,
            schedule=lambda delay, call: self.timers.append((self.now + delay, call)),
        )
        self.counter = 0

    def publish(self, epoch: int = 1) -> None:
        self.counter += 1
        resources = {SAME: content(SAME, "1"), MOVING: content(MOVING, str(self.counter))}
        self.gate.publish(SnapshotState(version=f"{epoch}.{self.counter}", epoch=epoch, resources=resources))

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        due = [call for at, call in self.timers if at <= self.now]
        self.timers = [(at, call) for at, call in self.timers if at > self.now]
        for call in due:
            call()

    @property
    def passed(self) -> list[str]:
        return [state.version for state in self.carrier.states]


def test_only_a_leaders_publications_pass():
    bench = Gate()
    bench.leads = False
    bench.publish()
    assert bench.passed == []
    bench.leads = True
    bench.publish()
    assert bench.passed == ["1.2"]
    bench.carrier.connect("one")
    assert [sync.node.id for sync in bench.gate.nodes()] == ["one"]
    assert bench.gate.synced([]).synced == ("one",)
    assert bench.gate.info() == {"open": True, "waiting": 0, "held_back": 1}


def test_a_flood_passes_four_times_a_second_and_nothing_of_it_is_left_out():
    bench = Gate()
    bench.publish()
    bench.carrier.connect("one")
    moments = set()
    for _ in range(300):
        before = len(bench.passed)
        bench.publish()
        bench.pass_time(0.01)
        if len(bench.passed) > before:
            moments.add(bench.now)
    bench.carrier.ack()
    assert bench.gate.synced([MOVING]).lagging == ("one",)  # what is newest of it waits
    assert bench.gate.synced([SAME]).synced == ("one",)
    bench.pass_time(1.0)
    bench.carrier.ack()
    assert bench.passed == [f"1.{number}" for number in range(1, 302)]
    assert len(moments) <= 6 + 3 * 4 + 1
    assert bench.gate.synced([MOVING]).synced == ("one",)


def test_what_waits_ends_with_the_term_and_the_next_one_waits_for_nothing():
    bench = Gate()
    for _ in range(20):
        bench.publish()
    passed = len(bench.passed)
    bench.leads = False
    bench.pass_time(1.0)
    assert len(bench.passed) == passed
    bench.leads = True
    bench.publish(epoch=2)
    assert bench.passed[-1] == "2.21"
