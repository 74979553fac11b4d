"""Which addresses are of servers outside: what an operator lets an external url name, and a proxy lets its name become.

A server outside has an address of the public internet. Everything else (the machine itself, its network, link-local addresses
with the clouds' metadata services, private networks, multicast) takes somebody's leave. An IPv4 address is judged as such
in whatever IPv6 address it is packed.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Final

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PUBLIC_V6: Final = ipaddress.ip_network("2000::/3")  # all that is given out to the internet
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_INSIDE_CLOUDS: Final = (
    ipaddress.ip_network("168.63.129.16/32"),  # Azure's platform, in each of its virtual machines
    ipaddress.ip_network("192.0.0.0/24"),  # special purposes; Oracle's metadata service
)


def is_outside(address: Address) -> bool:
    """Whether a server outside may have this address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address.is_global and not address.is_multicast and not any(address in network for network in _INSIDE_CLOUDS)
    packed = address.ipv4_mapped or address.sixtofour
    if packed is None and address in _NAT64:
        packed = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    if packed is not None:
        return is_outside(packed)
    return address in _PUBLIC_V6 and address.is_global and address.teredo is None


def may_reach(address: Address, allowed: Iterable[str]) -> bool:
    """Whether a proxy may connect to the address that a name outside has become; `allowed` are networks that it may be in."""
    if is_outside(address):
        return True
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    address = mapped or address
    return any(address in ipaddress.ip_network(network) for network in allowed)
