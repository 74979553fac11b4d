"""Which hosts an external backend may name.

TLS to any host but the machine's own addresses (loopback, link-local with the clouds' metadata service), plain http not at all;
either only to hosts on the allow-list: names, addresses or networks. A name is judged as a name here. The proxy that connects
looks at the address that it has become, and TLS holds whoever answers there to the name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

LOOPBACK: Final = ("127.0.0.0/8", "::1", "localhost")

_METADATA: Final = frozenset({ipaddress.ip_address("fd00:ec2::254")})  # those that are not link-local
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class AllowList:
    """Hosts that may be reached without TLS, or although they are the machine's own."""

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
    if host in allowed:
        return None
    allow = f"start the operator with --allow-host {host} (in standalone: allowHosts in spillway.yaml)"
    if not tls:
        return f"spec.external.url: plain http to {host} is not allowed: use https, or {allow}"
    if _own(host):
        return f"spec.external.url: {host} is an address of the machine itself: name a server outside, or {allow}"
    return None


def _own(host: str) -> bool:
    """Whether this is no address of a server outside: loopback, link-local, unspecified, multicast, a metadata service."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host.lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    unfit = address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast
    return unfit or address in _METADATA
