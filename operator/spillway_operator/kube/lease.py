"""Who leads: a `coordination.k8s.io` Lease, with an epoch for each term.

A replica that holds the Lease renews it each second. One that does not looks at it twice a second and takes it when nobody has
renewed it for `leaseDurationSeconds` of its own clock, or at once when the holder has let it go. Every write names the
resource version that was read, so of two that try one fails: the Lease is compare-and-swap, and clocks of two machines are never
compared.

Each term has an epoch, kept in an annotation of the Lease: one more than the one before, and at least the wall clock's milliseconds,
so that it goes on rising when somebody deletes the Lease. Proxies refuse what comes with an epoch below one they have seen.

A term is held only until `deadline_seconds` after the last renewal was *sent*, which is before anyone else may take it: whoever
cannot renew stops by himself, without having been told, and at that moment: no request of a leader waits for longer than its term.
`leads(now)` is asked before every publication and every write; once it has said no, the term does not come back. Between that moment and
the one at which another may lead there is a second to spare, in which the same replica may begin its next term as if nothing had been.

The figures: 4 s, because a leader that is gone must be replaced within 5 s; renewals each second and a deadline of 3 s, so that a busy
API server may take two for one. It carries one small write a second.
"""

from __future__ import annotations

import asyncio
import copy
import enum
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from spillway_operator.kube.api import ApiError, KubeApi, KubeError

EPOCH_ANNOTATION: Final = "spillway.dev/epoch"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Seconds."""

    duration_seconds: int = 4  # whole, as the API has it
    deadline_seconds: float = 3.0  # ... and a second between the end of one term and the begin of the next
    renew_seconds: float = 1.0
    look_seconds: float = 0.5
    attempt_seconds: float = 1.5  # for one request of a replica that does not lead; a leader's may take what is left of its term


class Action(enum.Enum):
    """What to do about the Lease as it was read."""

    CREATE = enum.auto()
    TAKE = enum.auto()
    RENEW = enum.auto()
    WAIT = enum.auto()


@dataclass(frozen=True, slots=True)
class Seen:
    """A Lease's state that somebody else keeps, and since when it is so on our monotonic clock."""

    mark: tuple[str, str, int]  # holder, time of renewal, epoch
    since: float


Document = dict[str, Any]


def holder_of(lease: Document | None) -> str:
    """Who holds it; empty where nobody does."""
    return str(_spec(lease).get("holderIdentity") or "")


def epoch_of(lease: Document | None) -> int:
    """The epoch of the term that the Lease tells of, 0 for none."""
    text = ((lease or {}).get("metadata", {}).get("annotations") or {}).get(EPOCH_ANNOTATION, "")
    return int(text) if str(text).isdecimal() else 0


def seen_of(lease: Document, before: Seen | None, now: float) -> Seen:
    """What is seen; keeps the moment while nothing changes."""
    mark = (holder_of(lease), str(_spec(lease).get("renewTime") or ""), epoch_of(lease))
    return before if before is not None and before.mark == mark else Seen(mark=mark, since=now)


def decide(lease: Document | None, identity: str, epoch: int | None, seen: Seen | None, now: float, timing: LeaseTiming) -> Action:
    """What to do. `epoch`: that of our own term if we hold one."""
    if lease is None:
        return Action.CREATE
    holder = holder_of(lease)
    if not holder:
        return Action.TAKE
    if holder == identity:
        return Action.RENEW if epoch is not None and epoch == epoch_of(lease) else Action.TAKE
    return Action.TAKE if seen is not None and now - seen.since >= patience_of(lease, timing) else Action.WAIT


def patience_of(lease: Document | None, timing: LeaseTiming) -> float:
    """Seconds without a renewal after which a held Lease may be taken: its holder's own promise."""
    duration = _spec(lease).get("leaseDurationSeconds")
    return float(duration) if isinstance(duration, int) and duration > 0 else float(timing.duration_seconds)


def held_lease(
    lease: Document | None,
    *,
    namespace: str,
    name: str,
    identity: str,
    renew_of: int | None,
    above: int = 0,
    moment: datetime,
    timing: LeaseTiming,
) -> Document:
    """The Lease as it is to be written: a term renewed (`renew_of`: its epoch), or a new one, with an epoch above `above`."""
    document: Document = copy.deepcopy(lease) if lease is not None else {"metadata": {"name": name, "namespace": namespace}}
    document |= {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    document["metadata"].pop("managedFields", None)
    spec = document.setdefault("spec", {})
    text = _micro_time(moment)
    if renew_of is None:
        epoch = max(epoch_of(lease) + 1, above + 1, int(moment.timestamp() * 1000))
        document["metadata"].setdefault("annotations", {})
        document["metadata"]["annotations"] = {**(document["metadata"]["annotations"] or {}), EPOCH_ANNOTATION: str(epoch)}
        spec["acquireTime"] = text
        spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + 1
    spec |= {"holderIdentity": identity, "leaseDurationSeconds": timing.duration_seconds, "renewTime": text}
    return document


def _spec(lease: Document | None) -> Document:
    return (lease or {}).get("spec") or {}


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class TermListener(Protocol):
    """What is told of terms; on the loop, in order."""

    def on_term(self, epoch: int) -> None:
        """We lead, with this epoch."""

    def on_lost(self, reason: str, spare_seconds: float) -> None:
        """We do not lead any more. Nobody else can for `spare_seconds`."""


class Election:
    """Runs for the Lease until it is cancelled. `clock`: monotonic; `wall_clock`: for the Lease's own times and the epoch's floor."""

    def __init__(
        self,
        api: KubeApi,
        listener: TermListener,
        *,
        namespace: str,
        name: str,
        identity: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
        timing: LeaseTiming | None = None,
    ) -> None:
        self._api = api
        self._listener = listener
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._clock = clock
        self._wall_clock = wall_clock
        self._timing = timing or LeaseTiming()
        self._lease: Document | None = None
        self._seen: Seen | None = None
        self._other = ""
        self._trouble = ""
        self._valid_until = 0.0
        self._highest = 0  # epoch seen, whoever's: a Lease that was deleted says nothing of it
        self.epoch: int | None = None
        self.terms = 0

    @property
    def _path(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"

    def leads(self, now: float) -> bool:
        """Whether our term holds at this moment."""
        return self.epoch is not None and now < self._valid_until

    async def run(self) -> None:
        """Runs for ever."""
        while True:
            begun = self._clock()
            await self._attempt()
            self._expire()
            await asyncio.sleep(max(0.02, begun + self._pause(begun) - self._clock()))

    def _pause(self, now: float) -> float:
        """Seconds until the next attempt: the next renewal, the next look, or the moment at which the Lease may be taken."""
        if self.epoch is not None:
            return min(self._timing.renew_seconds, self._valid_until - now)
        if self._seen is None:
            return self._timing.look_seconds
        return min(self._timing.look_seconds, self._seen.since + patience_of(self._lease, self._timing) - now)

    async def release(self) -> None:
        """Let a held Lease go, so that nobody waits for it to run out."""
        if self.epoch is None or self._lease is None:
            return
        self._end("it was let go")
        document = copy.deepcopy(self._lease)
        document["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": _micro_time(self._wall_clock())}
        try:
            await self._write("PUT", document, self._timing.attempt_seconds)
        except KubeError as error:
            _log.warning("lease: not let go, so another replica waits for it to run out: %s", error)

    async def _attempt(self) -> None:
        try:
            if self.epoch is not None and self._lease is not None and await self._renewed(self._lease, self.epoch):
                return
            await self._look()
            self._recovered()
        except KubeError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("lease: %s", error)

    async def _renewed(self, lease: Document, epoch: int) -> bool:
        """Whether our term goes on; False where the Lease is not as we left it."""
        try:
            await self._hold(lease, epoch)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise
            return False
        return True

    def _recovered(self) -> None:
        if self._trouble:
            self._trouble = ""
            _log.info("lease: the API server answers again")

    async def _look(self) -> None:
        lease = await self._read()
        now = self._clock()
        self._lease = lease
        self._highest = max(self._highest, epoch_of(lease))
        self._seen = None if lease is None else seen_of(lease, self._seen, now)
        action = decide(lease, self._identity, self.epoch, self._seen, now, self._timing)
        if action is Action.WAIT:
            self._end(f"{holder_of(lease)} holds it")
            self._tell_other(holder_of(lease))
            return
        try:
            await self._hold(lease, self.epoch if action is Action.RENEW else None)
        except ApiError as error:
            if error.status not in {404, 409}:
                raise
            self._seen = None  # somebody was quicker; look again

    async def _read(self) -> Document | None:
        try:
            lease: Document = await self._api.request("GET", f"{self._path}/{self._name}", timeout_seconds=self._patience())
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return lease

    async def _hold(self, lease: Document | None, renew_of: int | None) -> None:
        """Write the Lease as ours; then the term is new or goes on."""
        document = held_lease(
            lease,
            namespace=self._namespace,
            name=self._name,
            identity=self._identity,
            renew_of=renew_of,
            above=self._highest,
            moment=self._wall_clock(),
            timing=self._timing,
        )
        sent = self._clock()
        self._lease = await self._write("POST" if lease is None else "PUT", document, self._patience())
        self._seen, self._other = None, ""
        self._recovered()
        if renew_of is None:
            self._end("a new term begins")
            self._valid_until = sent + self._timing.deadline_seconds
            self.epoch = self._highest = epoch_of(self._lease)
            self.terms += 1
            _log.info("lease: %s leads, epoch %d", self._identity, self.epoch)
            self._listener.on_term(self.epoch)
        elif (now := self._clock()) < self._valid_until:
            self._valid_until = sent + self._timing.deadline_seconds
        else:  # it was over for a moment, and whoever asked then was told so: a new one is to begin
            self._end("it was renewed too late", max(0.0, sent + self._timing.duration_seconds - now))

    def _patience(self) -> float:
        """How long a request may take: a leader's ends with the term."""
        if self.epoch is None:
            return self._timing.attempt_seconds
        return max(0.05, self._valid_until - self._clock())

    async def _write(self, method: str, document: Document, timeout_seconds: float) -> Document:
        path = self._path if method == "POST" else f"{self._path}/{self._name}"
        written: Document = await self._api.request(method, path, document, timeout_seconds=timeout_seconds)
        return written

    def _expire(self) -> None:
        late = self._clock() - self._valid_until
        if self.epoch is not None and late >= 0:
            spare = self._timing.duration_seconds - self._timing.deadline_seconds - late
            self._end(self._trouble or "it was not renewed in time", max(0.0, spare))

    def _end(self, reason: str, spare_seconds: float = 0.0) -> None:
        if self.epoch is not None:
            _log.warning("lease: epoch %d is over: %s", self.epoch, reason)
            self.epoch = None
            self._listener.on_lost(reason, spare_seconds)

    def _tell_other(self, holder: str) -> None:
        if holder != self._other:
            self._other = holder
            _log.info("lease: %s leads; this replica stands by", holder)

    def info(self) -> dict[str, Any]:
        """The term, or whose it is."""
        now = self._clock()
        return {
            "identity": self._identity,
            "leads": self.leads(now),
            "epoch": self.epoch,
            "terms": self.terms,
            "valid_seconds": round(self._valid_until - now, 2) if self.epoch is not None else None,
            "holder": self._identity if self.epoch is not None else self._other,
            "trouble": self._trouble,
        }
