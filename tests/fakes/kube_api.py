"""As much of an API server as the operator asks: discovery, lists, watches, a Lease, statuses, Events, token reviews; and faults on demand.

Objects have a resource version that rises with every write. A watch sends what happened after its version. `fail` answers everything
with a status; `end_watches` puts an ERROR into every open watch; `stall` leaves open watches open and silent; `hide` takes a
group away, as if its CRDs were not there.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

Document = dict[str, Any]

GROUPS = {
    "": ("v1", {"pods": "Pod", "services": "Service", "namespaces": "Namespace"}),
    "apiextensions.k8s.io": ("v1", {"customresourcedefinitions": "CustomResourceDefinition"}),
    "spillway.dev": ("v1alpha1", {"modelbackends": "ModelBackend", "modelroutes": "ModelRoute"}),
    "discovery.k8s.io": ("v1", {"endpointslices": "EndpointSlice"}),
    "coordination.k8s.io": ("v1", {"leases": "Lease"}),
}
VERBS = ["get", "list", "watch", "create", "update", "patch", "delete"]


class FakeKubeApi:
    """State, and the server around it."""

    def __init__(self) -> None:
        self.version = 100
        self.oldest = 0  # versions below it are forgotten: 410
        self.objects: dict[tuple[str, str, str], Document] = {}  # plural, namespace, name
        self.history: list[tuple[int, str, str, Document]] = []  # version, plural, type, object
        self.failure: int | None = None
        self.hidden: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.statuses: list[Document] = []
        self.events: list[Document] = []
        self.tokens: dict[str, Document] = {}
        self.pages: dict[str, Document] = {}  # by path: whatever else it is to answer
        self._news = asyncio.Condition()
        self._errors: int | None = None
        self._generation = 0
        self._stalled: set[int] = set()
        self._open: set[int] = set()
        self._watches = 0
        self._runner: web.AppRunner | None = None
        self.port = 0

    # -- what a test does

    async def put(self, plural: str, document: Document) -> Document:
        """Create or change an object."""
        metadata = document["metadata"]
        key = (plural, metadata.setdefault("namespace", "ml"), metadata["name"])
        before = self.objects.get(key)
        metadata.setdefault("uid", before["metadata"]["uid"] if before else f"uid-{self.version}-{metadata['name']}")
        metadata.setdefault("creationTimestamp", "2026-01-31T12:00:00Z")
        metadata.setdefault("generation", 1)
        await self._record(key, "MODIFIED" if before else "ADDED", document)
        return document

    async def remove(self, plural: str, name: str, namespace: str = "ml") -> None:
        """Delete an object."""
        await self._record((plural, namespace, name), "DELETED", self.objects[plural, namespace, name])

    async def _record(self, key: tuple[str, str, str], kind: str, document: Document) -> None:
        async with self._news:
            self.version += 1
            document = json.loads(json.dumps(document))
            document["metadata"]["resourceVersion"] = str(self.version)
            if kind == "DELETED":
                del self.objects[key]
            else:
                self.objects[key] = document
            self.history.append((self.version, key[0], kind, document))
            self._news.notify_all()

    def forget_history(self) -> None:
        """What happened is known to nobody: a watch from before gets 410."""
        self.oldest = self.version
        self.history.clear()

    async def end_watches(self, code: int) -> None:
        """Every open watch gets an ERROR."""
        async with self._news:
            self._errors = code
            self._generation += 1
            self._news.notify_all()

    async def stall(self) -> None:
        """Open watches stay open and bring nothing more."""
        async with self._news:
            self._stalled |= self._open
            self._news.notify_all()

    def write_kubeconfig(self, path: Path) -> Path:
        """A kubeconfig for it."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1", "kind": "Config", "current-context": "fake",
                    "clusters": [{"name": "fake", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
                    "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
                    "users": [{"name": "fake", "user": {"token": "t0ken"}}],
                }
            )
        )  # fmt: skip
        return path

    # -- the server

    async def start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            async with self._news:
                self._errors, self._generation = None, self._generation + 1
                self._news.notify_all()
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:  # noqa: PLR0911 - a table of paths
        self.requests[f"{request.method} {'watch ' if 'watch' in request.query else ''}{request.path}"] += 1
        if self.failure is not None:
            return _status(self.failure, "Forbidden" if self.failure == 403 else "Unavailable", "by order of the test")
        if request.path in self.pages:
            return web.json_response(self.pages[request.path])
        parts = [part for part in request.path.split("/") if part]
        if parts == ["api"]:
            return web.json_response({"versions": ["v1"]})
        if parts == ["apis"]:
            return web.json_response({"groups": [_group(name) for name in GROUPS if name and name not in self.hidden]})
        group = "" if parts[0] == "api" else parts[1]
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        if group in self.hidden:
            return _status(404, "NotFound", "no such group")
        if not rest:
            return web.json_response(_resources(group))
        if rest == ["tokenreviews"]:
            return self._review(await request.json())
        namespace = ""
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        if rest == ["events"]:
            self.events.append(await request.json())
            return web.json_response(self.events[-1], status=201)
        if "watch" in request.query:
            return await self._watch(request, rest[0], namespace)
        if len(rest) == 1 and request.method == "GET":
            return self._list(rest[0], namespace)
        return await self._object(request, rest, namespace)

    def _list(self, plural: str, namespace: str) -> web.Response:
        kind = next(kinds[plural] for _, kinds in GROUPS.values() if plural in kinds)
        items = [found for (one, place, _), found in self.objects.items() if one == plural and namespace in {"", place}]
        return web.json_response({"kind": f"{kind}List", "metadata": {"resourceVersion": str(self.version)}, "items": items})

    async def _object(self, request: web.Request, rest: list[str], namespace: str) -> web.Response:  # noqa: PLR0911 - a table of verbs
        plural = rest[0]
        if request.method == "POST":
            document = await request.json()
            if (plural, namespace, document["metadata"]["name"]) in self.objects:
                return _status(409, "AlreadyExists", "it is there")
            document["metadata"]["namespace"] = namespace
            await self.put(plural, document)
            return web.json_response(self.objects[plural, namespace, document["metadata"]["name"]], status=201)
        found = self.objects.get((plural, namespace, rest[1]))
        if found is None:
            return _status(404, "NotFound", f"{plural} {rest[1]} is not there")
        if request.method == "GET":
            return web.json_response(found)
        document = await request.json()
        if request.method == "PATCH" and rest[2:] == ["status"]:
            self.statuses.append(document)
            if document["metadata"].get("uid", found["metadata"]["uid"]) != found["metadata"]["uid"]:
                return _status(409, "Conflict", "another uid")
            await self.put(plural, {**found, "status": document["status"]})
        elif document["metadata"].get("resourceVersion") != found["metadata"]["resourceVersion"]:
            return _status(409, "Conflict", "it was changed")
        else:
            await self.put(plural, document)
        return web.json_response(self.objects[plural, namespace, rest[1]])

    def _review(self, document: Document) -> web.Response:
        status = self.tokens.get(document["spec"]["token"], {"authenticated": False})
        return web.json_response({**document, "status": status}, status=201)

    async def _watch(self, request: web.Request, plural: str, namespace: str) -> web.StreamResponse:
        since = int(request.query.get("resourceVersion", "0"))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        self._watches += 1
        number, generation = self._watches, self._generation
        self._open.add(number)
        try:
            if since < self.oldest:
                await self._send(response, "ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
                return response
            while True:
                async with self._news:
                    while self._generation == generation and not self._has_news(number, plural, since):
                        await self._news.wait()
                    if self._generation != generation:
                        if self._errors is not None:
                            status = {"kind": "Status", "code": self._errors, "reason": "Test", "message": "by order of the test"}
                            await self._send(response, "ERROR", status)
                        return response
                    news = [entry for entry in self.history if entry[0] > since and entry[1] == plural]
                    since = self.version
                for _, _, kind, document in news:
                    if namespace in {"", document["metadata"]["namespace"]}:
                        await self._send(response, kind, document)
        finally:
            self._open.discard(number)

    def _has_news(self, number: int, plural: str, since: int) -> bool:
        return number not in self._stalled and any(version > since and of == plural for version, of, _, _ in self.history)

    @staticmethod
    async def _send(response: web.StreamResponse, kind: str, document: Document) -> None:
        await response.write(json.dumps({"type": kind, "object": document}).encode() + b"\n")


def _group(name: str) -> Document:
    version = {"groupVersion": f"{name}/{GROUPS[name][0]}", "version": GROUPS[name][0]}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resources(group: str) -> Document:
    return {
        "kind": "APIResourceList",
        "resources": [
            {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": VERBS}
            for plural, kind in GROUPS[group][1].items()
        ],
    }


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(
        {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message}, status=code
    )


@asynccontextmanager
async def fake_kube_api() -> AsyncIterator[FakeKubeApi]:
    """A server for one test."""
    server = FakeKubeApi()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
