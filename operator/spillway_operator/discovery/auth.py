"""Who may open a stream, and which node it may speak for.

A connection is identified when it is upgraded; the node that its hello names is held against that identity. On one machine
(`LoopbackAuthenticator`) whoever reaches the port over loopback may speak for any node.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
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

    def may_speak_for(self, node: Node) -> bool:
        """Whether a peer of this identity may call itself `node`."""
        return self.namespace in {None, node.namespace} and self.pod in {None, node.pod}


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
