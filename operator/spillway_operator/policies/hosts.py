"""Which hosts an external backend may name.

TLS to any name, and to addresses of the public internet; plain http, and other addresses (of the machine itself, its network, the
clouds' metadata services, private networks), only where they are on the allow-list: names, addresses or networks. A name is
judged as a name here. The proxy that connects judges the addresses that it has become by the same rules, and TLS holds whoever
answers there to the name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from spillway_wire.addresses import is_outside

LOOPBACK: Final = ("127.0.0.0/8", "::1", "localhost")

_EVERYWHERE: Final = ("0.0.0.0/0", "::/0")
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

    def networks_for(self, host: str) -> tuple[str, ...]:
        """Where the addresses of this host may be beside the public internet: anywhere, if the host itself is allowed."""
        return _EVERYWHERE if host in self else tuple(str(network) for network in self.networks)


def refused(host: str, *, tls: bool, allowed: AllowList) -> str | None:
    """Why the host may not be used, with the remedy; None if it may."""
    if host in allowed:
        return None
    allow = f"start the operator with --allow-host {host} (in standalone: allowHosts in spillway.yaml)"
    if not tls:
        return f"spec.external.url: plain http to {host} is not allowed: use https, or {allow}"
    if _own(host):
        return f"spec.external.url: {host} is no address of the public internet: name a server outside, or {allow}"
    return None


def _own(host: str) -> bool:
    """Whether this is, by its form, no address of a server outside."""
    try:
        return not is_outside(ipaddress.ip_address(host))
    except ValueError:
        return host.lower() == "localhost" or host.lower().endswith(".localhost")
