"""Who may open a stream, and which node it may speak for.

A connection is identified when it is upgraded; the node that its hello names is held against that identity. On one machine
(`LoopbackAuthenticator`) whoever reaches the port over loopback may speak for any node. In a cluster (`TokenAuthenticator`) a proxy
shows the token of its pod, which the API server reviews: it speaks for that pod alone and is told of that pod's namespace alone,
unless its service account is one of the gateways'.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from spillway_wire.messages import Node


class UnauthenticatedError(Exception):
    """The peer is nobody we know: 401."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What is proven about a peer. None leaves it open."""

    namespace: str | None = None
    pod: str | None = None
    everywhere: bool = False  # it may be told of all namespaces

    def may_speak_for(self, node: Node) -> bool:
        """Whether a peer of this identity may call itself `node`: a proven pod only by its own name, `namespace/pod`."""
        if self.pod not in {None, node.pod}:
            return False
        if self.pod is not None and self.namespace is not None and node.id != f"{self.namespace}/{self.pod}":
            return False
        return self.namespace in {None, node.namespace} or (self.everywhere and not node.namespace)


ANYONE = Identity()


class Authenticator(Protocol):
    """Proves an identity from the upgrade request."""

    async def identify(self, headers: Mapping[str, str], peer_host: str) -> Identity:
        """The peer's identity. Raises `UnauthenticatedError`; the caller gives it a deadline."""


class LoopbackAuthenticator:
    """Standalone: any node from this machine, nobody from elsewhere."""

    async def identify(self, headers: Mapping[str, str], peer_host: str) -> Identity:
        """Accepts loopback peers."""
        try:
            if ipaddress.ip_address(peer_host).is_loopback:
                return ANYONE
        except ValueError:
            pass
        raise UnauthenticatedError(f"{peer_host or 'unknown peer'} is not on this machine")


class ProvenToken(Protocol):
    """What a review of a token finds."""

    @property
    def namespace(self) -> str:
        """Of the service account and of the pod."""

    @property
    def service_account(self) -> str:
        """Its name."""

    @property
    def pod(self) -> str:
        """The pod that the token is bound to."""

    @property
    def refusal(self) -> str:
        """Why it proves nothing; empty where it is good."""


class TokenAuthenticator:
    """In a cluster: a bearer token, bound to a pod. `review` may fail, and then nobody is let in."""

    def __init__(self, review: Callable[[str], Awaitable[ProvenToken]], *, gateways: Collection[tuple[str, str]]) -> None:
        self._review = review
        self._gateways = frozenset(gateways)

    async def identify(self, headers: Mapping[str, str], peer_host: str) -> Identity:
        """The pod in the token."""
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise UnauthenticatedError("no bearer token")
        try:
            proven = await self._review(token.strip())
        except Exception as error:  # whatever it is: not reviewed is not known
            raise UnauthenticatedError(f"the token could not be reviewed: {error}") from error
        if proven.refusal:
            raise UnauthenticatedError(proven.refusal)
        account = (proven.namespace, proven.service_account)
        return Identity(namespace=proven.namespace, pod=proven.pod, everywhere=account in self._gateways)
