"""The WebSocket to the operator, by aiohttp: where it leads, and what may go wrong with it.

A module of its own since aiohttp takes as long to import as all else that a proxy needs to serve: `client` brings it in when the last
good snapshot is in force. Proxies from the environment, cookies and redirects are not followed: the operator is one address that was given.
"""

from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import Final, Self

import aiohttp

from spillway_wire.messages import MAX_FRAME_FROM_OPERATOR_BYTES

Socket = aiohttp.ClientWebSocketResponse[bool]


class RedirectedError(aiohttp.ClientError):
    """The operator's address answered with a redirect."""


class Dialer:
    """Makes connections. Each of them may end with one of `FAILURES`."""

    TEXT: Final = aiohttp.WSMsgType.TEXT
    FAILURES: Final = (aiohttp.ClientError, TimeoutError, OSError)

    def __init__(self, connect_seconds: float, close_seconds: float) -> None:
        self._connect_seconds = connect_seconds
        self._close_seconds = close_seconds
        tracing = aiohttp.TraceConfig()
        tracing.on_request_redirect.append(_refuse_redirect)
        self._session = aiohttp.ClientSession(
            # The operator's name has the address of each replica; one that is new is to be found within seconds.
            connector=aiohttp.TCPConnector(ttl_dns_cache=2),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds),
            trace_configs=[tracing],
        )

    async def dial(self, url: str, headers: dict[str, str], tls: ssl.SSLContext | bool) -> Socket:
        """One connection."""
        async with asyncio.timeout(self._connect_seconds):
            return await self._session.ws_connect(
                url,
                headers=headers,
                ssl=tls,
                max_msg_size=MAX_FRAME_FROM_OPERATOR_BYTES,
                compress=0,
                autoping=True,
                decode_text=False,
                timeout=aiohttp.ClientWSTimeout(ws_close=self._close_seconds),
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()


async def _refuse_redirect(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
) -> None:
    params.response.close()
    raise RedirectedError(f"the operator's address redirects ({params.response.status})")
