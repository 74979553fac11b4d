"""Connections to servers outside: the name is resolved here, and of its addresses only those are dialled that it may have.

The address that was checked is the one that is connected to: a name that answers otherwise the next time it is asked changes
nothing. TLS holds whoever answers there to the name. Redirects are not followed anywhere in the proxy.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Any

from spillway_wire.addresses import may_reach


class AddressRefusedError(OSError):
    """The name has become an address that no server outside has."""


async def dial_outside(
    protocol: Callable[[], Any],
    host: str,
    port: int,
    *,
    tls: ssl.SSLContext | None,
    server_name: str | None,
    allowed: Sequence[str],
) -> Any:
    """A connection to the first of the host's addresses that may be reached and takes it. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    good = [address for address in addresses if may_reach(ipaddress.ip_address(address), allowed)]
    if not good:
        raise AddressRefusedError(
            f"{host} resolves to {', '.join(addresses)}, which is not of the public internet: name a server outside, or allow the host or network"
        )
    failure: OSError | None = None
    for address in good:
        try:
            _, connected = await loop.create_connection(
                protocol, address, port, ssl=tls, server_hostname=server_name if tls is not None else None
            )
        except ssl.SSLError:
            raise
        except OSError as error:
            failure = error
        else:
            return connected
    assert failure is not None  # noqa: S101
    raise failure
