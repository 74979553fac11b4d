"""Reading from a cluster, with what kubectl knows of it: objects from the API server, decision records from proxies through it.

A decision record is in the memory of the proxy that took the request. Its admin port is reached through the API server
(`pods/proxy`), so a person needs that right and no port-forward; gateways are asked first, then injected sidecars.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from spillway.admin import AdminError, NotThereError, escaped

if TYPE_CHECKING:
    from spillway_operator.kube.api import KubeApi

PLURALS = {"ModelRoute": "modelroutes", "ModelBackend": "modelbackends"}
GATEWAYS = "app.kubernetes.io/name=spillway,app.kubernetes.io/component=gateway"
SIDECARS = "spillway.dev/sidecar=injected"
ADMIN_PORTS = ("admin", "spillway-admin")
TIMEOUT_SECONDS = 10.0
ASKED_AT_ONCE = 16

T = TypeVar("T")
Ask = Callable[..., Awaitable[Any]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which cluster."""
    group = parser.add_argument_group("in a cluster")
    group.add_argument("--cluster", action="store_true", help="ask the cluster that kubectl talks to, not a `spillway run`")
    group.add_argument("--kubeconfig", metavar="FILE", help="the cluster of this kubeconfig")
    group.add_argument("--context", metavar="NAME", help="the cluster of this context")


def asked_for(args: argparse.Namespace) -> bool:
    """Whether the command line is about a cluster."""
    return bool(args.cluster or args.kubeconfig or args.context)


def objects(args: argparse.Namespace, kind: str) -> list[dict[str, Any]]:
    """The objects of a kind, of `args.namespace` or of all. Raises `AdminError`."""
    return _ask(args, lambda ask: _objects(ask, kind, args.namespace))


def record(args: argparse.Namespace, request_id: str) -> Any:
    """The decision record of a request. Raises `AdminError`, `NotThereError` where no proxy has it."""
    return _ask(args, lambda ask: _record(ask, request_id))


def _ask(args: argparse.Namespace, work: Callable[[Ask], Coroutine[Any, Any, T]]) -> T:
    from spillway_operator.kube.access import AccessError
    from spillway_operator.kube.api import ApiError, KubeError

    async def run() -> T:
        async with _api(args) as api:

            async def ask(path: str, **params: str) -> Any:
                return await api.request("GET", path, params=params, timeout_seconds=TIMEOUT_SECONDS)

            return await work(ask)

    try:
        return asyncio.run(run())
    except AccessError as error:
        raise AdminError(f"no cluster to ask: {error}") from None
    except ApiError as error:
        hint = "; name one with --namespace if you may not read all" if error.status == 403 else ""
        hint = "; are Spillway's CRDs installed there?" if error.status == 404 else hint
        raise AdminError(f"the API server says {error}{hint}") from None
    except KubeError as error:
        raise AdminError(f"the API server does not answer: {error}") from None


@asynccontextmanager
async def _api(args: argparse.Namespace) -> AsyncIterator[KubeApi]:
    from spillway_operator.kube.access import KubeAccess
    from spillway_operator.kube.api import KubeApi

    api = KubeApi(await KubeAccess.load(Path(args.kubeconfig) if args.kubeconfig else None, args.context))
    await api.start()
    try:
        yield api
    finally:
        await api.close()


async def _objects(ask: Ask, kind: str, namespace: str | None) -> list[dict[str, Any]]:
    place = f"namespaces/{escaped(namespace)}/" if namespace else ""
    listed = await ask(f"/apis/spillway.dev/v1alpha1/{place}{PLURALS[kind]}")
    return [{"apiVersion": "spillway.dev/v1alpha1", "kind": kind, **_clean(item)} for item in listed.get("items") or []]


def _clean(item: dict[str, Any]) -> dict[str, Any]:
    """Without what only tools read, as kubectl shows it."""
    item.get("metadata", {}).pop("managedFields", None)
    return item


async def _record(ask: Ask, request_id: str) -> Any:
    from spillway_operator.kube.api import ApiError

    asked = 0
    trouble: ApiError | None = None
    for selector in (GATEWAYS, SIDECARS):
        pods = (await ask("/api/v1/pods", labelSelector=selector)).get("items") or []
        ports = {_name(pod): port for pod in pods if (port := _admin_port(pod)) is not None}
        asked += len(ports)
        room = asyncio.Semaphore(ASKED_AT_ONCE)

        async def look(name: str, port: int, room: asyncio.Semaphore = room) -> Any:
            namespace, _, pod = name.partition("/")
            async with room:
                return await ask(f"/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy/explain/{escaped(request_id)}")

        for answer in await asyncio.gather(*(look(*each) for each in ports.items()), return_exceptions=True):
            if isinstance(answer, ApiError):
                trouble = answer if answer.status == 403 else trouble
            elif isinstance(answer, Mapping):
                return answer
            elif isinstance(answer, BaseException) and not isinstance(answer, Exception):
                raise answer
    if trouble is not None:
        raise trouble
    raise NotThereError(f"none of {asked} proxies has a record")


def _name(pod: Mapping[str, Any]) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


def _admin_port(pod: Mapping[str, Any]) -> int | None:
    """The admin port of a running pod's proxy."""
    if pod.get("status", {}).get("phase") != "Running":
        return None
    spec = pod.get("spec", {})
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for port in container.get("ports") or ():
            if port.get("name") in ADMIN_PORTS:
                return int(port["containerPort"])
    return None
