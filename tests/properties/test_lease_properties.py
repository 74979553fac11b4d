"""However requests fail, are late or are carried out without an answer: never two leaders at a time, and epochs only rise."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.kube.api import ApiError, UnreachableError
from spillway_operator.kube.lease import Election

MOMENT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
NAMES = ("one", "two", "three")

steps = st.lists(
    st.one_of(
        st.tuples(st.just("turn"), st.sampled_from(NAMES), st.sampled_from(["well", "lost", "unanswered"])),
        st.tuples(st.just("time"), st.sampled_from([0.1, 0.5, 1.0, 2.9, 3.0, 4.0, 30.0]), st.just("")),
        st.tuples(st.just("release"), st.sampled_from(NAMES), st.sampled_from(["well", "lost", "unanswered"])),
        st.tuples(st.just("delete"), st.just(""), st.just("")),
    ),
    max_size=60,
)


class Server:
    """One Lease, behind a network that the test spoils."""

    def __init__(self) -> None:
        self.document: dict[str, Any] | None = None
        self.version = 0
        self.how = "well"

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        if self.how == "lost":
            raise UnreachableError("lost")
        answer = self._carry_out(method, body)
        if self.how == "unanswered":
            raise UnreachableError("carried out, and not answered")
        return answer

    def _carry_out(self, method: str, body: Any) -> Any:
        if method == "GET":
            if self.document is None:
                raise ApiError(404, "NotFound", "")
            return self.document
        there = self.document is not None
        if there == (method == "POST"):
            raise ApiError(409 if there else 404, "", "")
        if (
            there
            and self.document is not None
            and body["metadata"].get("resourceVersion") != self.document["metadata"]["resourceVersion"]
        ):
            raise ApiError(409, "Conflict", "")
        self.version += 1
        self.document = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        return self.document


class Run:
    def __init__(self) -> None:
        self.server = Server()
        self.now = 0.0
        self.epochs: list[int] = []
        self.elections = {name: self._election(name) for name in NAMES}

    def _election(self, name: str) -> Election:
        run = self

        class Listener:
            def on_term(self, epoch: int) -> None:
                run.epochs.append(epoch)

            def on_lost(self, reason: str, spare_seconds: float) -> None:
                pass

        return Election(
            self.server,  # type: ignore[arg-type]
            Listener(),
            namespace="n",
            name="l",
            identity=name,
            clock=lambda: self.now,
            wall_clock=lambda: MOMENT + timedelta(seconds=self.now),
        )

    @property
    def leaders(self) -> list[str]:
        return [name for name, election in self.elections.items() if election.leads(self.now)]

    async def step(self, what: str, who: Any, how: str) -> None:
        self.now += 0.001
        if what == "time":
            self.now += who
        elif what == "delete":
            self.server.document = None
        else:
            self.server.how = how
            election = self.elections[who]
            await (election.release() if what == "release" else election._attempt())
            election._expire()


@given(steps)
def test_terms_follow_one_another(script: list[tuple[str, Any, str]]):
    asyncio.run(_play(script))


async def _play(script: list[tuple[str, Any, str]]) -> None:
    run = Run()
    deleted_at = -100.0
    for step in script:
        await run.step(*step)
        if step[0] == "delete":
            deleted_at = run.now
        # Whoever deletes a Lease that is held lets another one in beside its holder, until that one looks or its term is over: 3 s.
        # The epochs are what keeps their updates apart then.
        assert len(run.leaders) <= 1 or run.now - deleted_at < 3.0
    assert run.epochs == sorted(set(run.epochs))
