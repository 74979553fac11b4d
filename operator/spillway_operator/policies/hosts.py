"""Which hosts an external backend may name.

TLS anywhere, plain http only to hosts on the allow-list: names, addresses or networks. What an https name resolves to is
checked again by the proxy that connects.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = ("127.0.0.0/8", "::1", "localhost")

_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts that may be reached without TLS."""

    names: frozenset[str]
    networks: tuple[_Network, ...]

    @classmethod
    def of(cls, entries: Iterable[str]) -> AllowList:
        """From `localhost`, `10.0.0.0/8`, `::1`. Raises ValueError for an empty entry or a network with host bits."""
        names: set[str] = set()
        networks: list[_Network] = []
        for entry in entries:
            text = entry.strip().lower().strip("[]")
            if not text:
                raise ValueError("an allowed host is empty: give a name, an address or a network")
            if "/" in text:
                networks.append(ipaddress.ip_network(text))
                continue
            try:
                networks.append(ipaddress.ip_network(text))
            except ValueError:
                names.add(text)
        return cls(names=frozenset(names), networks=tuple(networks))

    def __contains__(self, host: str) -> bool:
        text = host.lower()
        if text in self.names:
            return True
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return any(address in network for network in self.networks)


def refused(host: str, *, tls: bool, allowed: AllowList) -> str | None:
    """Why the host may not be used, with the remedy; None if it may."""
    if tls or host in allowed:
        return None
    return (
        f"spec.external.url: plain http to {host} is not allowed: use https, or start the operator with --allow-host {host}"
        " (in standalone: allowHosts in spillway.yaml)"
    )
