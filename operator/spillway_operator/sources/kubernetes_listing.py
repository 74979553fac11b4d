"""What kopf's requests tell: which objects a list held, whether the API server answers, and what it does not serve.

kopf hands on objects one by one and says nothing of the end of a list; when it lists again, after it lost its place in a
watch, it says nothing of what was deleted meanwhile. So each of its requests passes through here: the uids of a list are read off the
answer, and with them the source knows when it has seen everything, and what is gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import msgspec

Place = tuple[str, str]

UNAUTHORIZED_SECONDS: Final = 1.0

RESOURCES: Final = {  # plural and group -> the name that is used here
    ("modelbackends", "spillway.dev"): "ModelBackend",
    ("modelroutes", "spillway.dev"): "ModelRoute",
    ("pods", ""): "Pod",
    ("services", ""): "Service",
    ("endpointslices", "discovery.k8s.io"): "EndpointSlice",
}


@dataclass(frozen=True, slots=True)
class Listed:
    """A whole list: every object of a resource in a namespace (empty: in all)."""

    resource: str
    namespace: str
    uids: Mapping[Place, str]


@dataclass(slots=True)
class Contact:
    """How it goes with one resource."""

    answers: int = 0
    failing_since: float | None = None
    failure: str = ""
    last_answer_at: float | None = None


class _Metadata(msgspec.Struct, frozen=True):
    name: str
    namespace: str = ""
    uid: str = ""


class _Item(msgspec.Struct, frozen=True):
    metadata: _Metadata


class _ListMetadata(msgspec.Struct, frozen=True, rename={"continue_": "continue"}):
    continue_: str | None = None


class _List(msgspec.Struct, frozen=True):
    metadata: _ListMetadata = _ListMetadata()
    items: list[_Item] | None = None


_DECODER: Final = msgspec.json.Decoder(_List)


def resource_of(path: str) -> tuple[str, str] | None:
    """(resource, namespace) of a collection's path; None for any other."""
    parts = path.strip("/").split("/")
    group = "" if parts[:1] == ["api"] else parts[1] if parts[:1] == ["apis"] and len(parts) > 1 else None
    rest = parts[2:] if parts[:1] == ["api"] else parts[3:]
    if group is None or not rest:
        return None
    namespace = ""
    if len(rest) == 3 and rest[0] == "namespaces":
        namespace, rest = rest[1], rest[2:]
    name = RESOURCES.get((rest[0], group)) if len(rest) == 1 else None
    return None if name is None else (name, namespace)


@dataclass(slots=True)
class Observer:
    """An aiohttp middleware. `on_listed` is called on the loop of the requests, before kopf hands on the first object of the list."""

    clock: Callable[[], float]
    on_listed: Callable[[Listed], None]
    contacts: dict[str, Contact] = field(default_factory=dict)
    last_good_at: float | None = None
    _pages: dict[tuple[str, str], dict[Place, str]] = field(default_factory=dict)

    async def __call__(
        self, request: aiohttp.ClientRequest, handler: Callable[[aiohttp.ClientRequest], Awaitable[aiohttp.ClientResponse]]
    ) -> aiohttp.ClientResponse:
        """Pass a request on and look at its answer."""
        about = resource_of(request.url.path)
        try:
            response = await handler(request)
            if about is not None and response.status == 200 and "watch" not in request.url.query:
                self._read_list(about, await response.read(), first="continue" not in request.url.query)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._note(about, f"{type(error).__name__}: {str(error).partition(' to host ')[0]}")
            raise
        self._note(about, "" if response.status < 400 else f"{response.status} {response.reason}")
        if response.status == 401:
            await asyncio.sleep(UNAUTHORIZED_SECONDS)  # kopf signs on anew at once, however often
        return response

    def _note(self, about: tuple[str, str] | None, failure: str) -> None:
        now = self.clock()
        if not failure:
            self.last_good_at = now
        if about is None:
            return
        contact = self.contacts.setdefault(about[0], Contact())
        contact.failure = failure[:300]
        if failure:
            contact.failing_since = now if contact.failing_since is None else contact.failing_since
        else:
            contact.failing_since = None
            contact.answers += 1
            contact.last_answer_at = now

    def _read_list(self, about: tuple[str, str], data: bytes, *, first: bool) -> None:
        try:
            page = _DECODER.decode(data)
        except msgspec.DecodeError:
            return  # kopf will say what it thinks of it
        found = {} if first else self._pages.get(about, {})
        for item in page.items or ():
            found[item.metadata.namespace, item.metadata.name] = item.metadata.uid
        if page.metadata.continue_:
            self._pages[about] = found
            return
        self._pages.pop(about, None)
        self.on_listed(Listed(resource=about[0], namespace=about[1], uids=found))

    def info(self) -> dict[str, Any]:
        """How it goes, by resource."""
        now = self.clock()
        return {
            name: {
                "answers": contact.answers,
                "failing_seconds": None if contact.failing_since is None else round(now - contact.failing_since, 1),
                "failure": contact.failure,
            }
            for name, contact in sorted(self.contacts.items())
        }
