"""Resources from a cluster: what kopf sees, put into the store.

kopf runs in a thread; its changes come over in order, are gathered for a moment, and are applied here, on the operator's loop. Our own
kinds become entries with the status that stands on the API server; pods, EndpointSlices and Services become endpoints.

Nothing is taken away because a watch broke: an object goes when a DELETED says so for its very uid, or when a later list does not have
it. The store is *synced* once every resource was listed and each object of those lists has come through; before that nothing is
published, and while the API server is away what is known stays.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from spillway_operator.api import ModelBackend, ObjectKey
from spillway_operator.kube.access import KubeAccess
from spillway_operator.sources.kubernetes_endpoints import EndpointBook
from spillway_operator.sources.kubernetes_listing import RESOURCES, Listed, Place
from spillway_operator.sources.kubernetes_objects import PodFacts, object_facts
from spillway_operator.sources.kubernetes_watch import Change, KopfThread, WatchPace
from spillway_operator.store import BACKEND, ROUTE, Store
from spillway_wire.snapshot import Endpoint

GATHER_SECONDS = 0.005  # a burst is one pass

_log = logging.getLogger(__name__)

_OWN = (BACKEND, ROUTE)


class KubernetesSource:
    """Keeps the store in line with a cluster. `on_other_object`: another object has the name of one that was known."""

    def __init__(
        self,
        store: Store,
        access: KubeAccess,
        *,
        namespaces: Sequence[str],
        pod_selector: str,
        clock: Callable[[], float],
        rng: random.Random,
        on_other_object: Callable[[ObjectKey], None],
        pace: WatchPace | None = None,
    ) -> None:
        self._store = store
        self._on_other_object = on_other_object
        self._clock = clock
        self._scopes = tuple(namespaces) or ("",)
        self._thread = KopfThread(
            access, self._emit, namespaces=namespaces, pod_selector=pod_selector, clock=clock, rng=rng, pace=pace
        )
        self._inbox: deque[Listed | Change] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._due = False
        self._uids: dict[str, dict[Place, str]] = {name: {} for name in RESOURCES.values()}
        self._awaited: dict[tuple[str, str], set[str]] = {}  # uids of first lists that have not come through
        self._unlisted = {(name, scope) for name in RESOURCES.values() for scope in self._scopes}
        self._endpoints: dict[str, tuple[Endpoint, ...]] = {}
        self._book = EndpointBook()
        self._synced = asyncio.Event()
        self._changes = 0

    @property
    def synced(self) -> bool:
        """Whether everything that is there has been put into the store once."""
        return self._synced.is_set()

    def uid_of(self, key: ObjectKey) -> str:
        """The uid of one of our objects; empty where it is not known."""
        return self._uids.get(key.kind, {}).get((key.namespace, key.name), "")

    def pod(self, namespace: str, name: str) -> PodFacts | None:
        """A pod as last seen."""
        return self._book.pod(namespace, name)

    async def start(self) -> None:
        """Returns when the store is synced. Without an API server that is when there is one; until then it says why, now and then."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        told = ""
        while not self._synced.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0):
                    await self._synced.wait()
            if not self._synced.is_set() and (reason := self.waits_for()) != told:
                told = reason
                _log.warning("kubernetes: not everything is read yet: %s", told)
        _log.info("kubernetes: everything is read: %s", self._book.info())

    async def read(self) -> None:
        """Returns when the store is synced."""
        await self._synced.wait()

    def waits_for(self) -> str:
        """What is not there yet before the store is synced."""
        missing = sorted({name for name, _ in self._unlisted})
        return self._thread.failing or (f"no list of {', '.join(missing)}" if missing else "some objects are on their way")

    async def stop(self) -> None:
        """Stop following."""
        await self._thread.stop()

    def _emit(self, message: Listed | Change) -> None:
        """On kopf's loop."""
        self._inbox.append(message)
        if not self._due and self._loop is not None:
            self._due = True
            with contextlib.suppress(RuntimeError):  # the operator's loop is closed: it stops
                self._loop.call_soon_threadsafe(self._gather)

    def _gather(self) -> None:
        if self._loop is not None:
            self._loop.call_later(GATHER_SECONDS, self.take)

    def take(self) -> None:
        """Apply what has come."""
        self._due = False
        while self._inbox:
            message = self._inbox.popleft()
            try:
                if isinstance(message, Listed):
                    self._listed(message)
                else:
                    self._change(message)
            except Exception:  # noqa: BLE001 - one strange object is not to stop the others
                _log.exception("kubernetes: %s is passed over", message)
        self._set_endpoints()
        if not self._unlisted and not self._awaited and not self._synced.is_set():
            self._synced.set()

    def _listed(self, listed: Listed) -> None:
        known = self._uids[listed.resource]
        for place, uid in list(known.items()):
            if listed.namespace in {"", place[0]} and listed.uids.get(place) != uid:
                self._remove(listed.resource, place)
        about = (listed.resource, listed.namespace)
        if about in self._unlisted:
            self._unlisted.discard(about)
            self._awaited[about] = set(listed.uids.values())
        elif about in self._awaited:
            self._awaited[about] &= set(listed.uids.values())
        self._came_through(listed.resource, "", listed.namespace)

    def _came_through(self, resource: str, uid: str, namespace: str) -> None:
        for scope in {namespace, ""}:
            awaited = self._awaited.get((resource, scope))
            if awaited is not None:
                awaited.discard(uid)
                if not awaited:
                    del self._awaited[resource, scope]

    def _change(self, change: Change) -> None:
        self._changes += 1
        known = self._uids[change.resource]
        before = known.get(change.place)
        if change.facts is None:
            if before == change.uid:
                self._remove(change.resource, change.place)
        else:
            if before is not None and before != change.uid:
                self._remove(change.resource, change.place)
            known[change.place] = change.uid
            self._put(change)
        self._came_through(change.resource, change.uid, change.place[0])

    def _put(self, change: Change) -> None:
        resource, place = change.resource, change.place
        if resource in _OWN:
            key = ObjectKey(resource, *place)
            facts = object_facts(resource, change.facts, self._store.get(key))
            self._store.put(facts.entry)
            self._store.set_status(key, facts.status)
            if resource == BACKEND:
                self._book.set_backend(place, facts.entry.object if isinstance(facts.entry.object, ModelBackend) else None)
        elif resource == "Pod":
            self._book.set_pod(place, change.facts)
        elif resource == "Service":
            self._book.set_service(place, change.facts)
        else:
            self._book.set_slice(place, change.facts)

    def _remove(self, resource: str, place: Place) -> None:
        del self._uids[resource][place]
        if resource in _OWN:
            key = ObjectKey(resource, *place)
            self._store.remove(key)
            self._on_other_object(key)
            if resource == BACKEND:
                self._book.set_backend(place, None)
        elif resource == "Pod":
            self._book.set_pod(place, None)
        elif resource == "Service":
            self._book.set_service(place, None)
        else:
            self._book.set_slice(place, None)

    def _set_endpoints(self) -> None:
        touched = self._book.take_touched()
        if not touched:
            return
        for namespace, name in touched:
            endpoints = self._book.endpoints((namespace, name))
            if endpoints is None:
                self._endpoints.pop(f"{namespace}/{name}", None)
            else:
                self._endpoints[f"{namespace}/{name}"] = endpoints
        self._store.set_endpoints(self._endpoints)

    def info(self) -> dict[str, Any]:
        """What is followed, and how it goes."""
        return {
            "source": "kubernetes",
            "namespaces": [scope for scope in self._scopes if scope],
            "synced": self.synced,
            "waits_for": "" if self.synced else self.waits_for(),
            "changes": self._changes,
            "objects": {name: len(uids) for name, uids in self._uids.items()},
            "endpoints": self._book.info(),
            "kopf": self._thread.info(),
        }
