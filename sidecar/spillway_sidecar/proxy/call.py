"""One request at one endpoint: on an idle connection to it, or on a fresh one that is dialled first.

`Upstream` reads the reply and gives its events to the call that sent the request: `interim`, `replied`, `relay`, `completed`,
`lost`. What becomes of them is for the subclasses: `Exchange`, which a client waits for, and `Hedge`, its second try.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

from spillway_sidecar.proxy.errors import Outcome
from spillway_sidecar.proxy.heads import ResponseHead

if TYPE_CHECKING:
    from spillway_sidecar.proxy.listener import Listener
    from spillway_sidecar.proxy.upstream import Target, Upstream

CHOOSING, CONNECTING, WAITING, STREAMING, OVER = range(5)


class Call:
    """`state` goes from choosing over connecting and waiting to streaming, and ends in over."""

    __slots__ = ("_dialling", "events", "partial", "site", "state", "target", "unframed", "upstream")

    def __init__(self, site: Listener) -> None:
        self.site = site
        self.state = CHOOSING
        self.target: Target | None = None
        self.upstream: Upstream | None = None
        self.events = False  # the reply is an SSE stream
        self.unframed = False  # chunked framing is taken off
        self.partial = False  # the start of a chunk has gone out, and its end has not
        self._dialling: asyncio.Task[None] | None = None

    # --- for subclasses

    def interim(self, head: ResponseHead) -> None:
        """A 1xx from upstream. Never passed on."""

    def replied(self, head: ResponseHead) -> bool:
        """The final head has come. False: the connection is not read for this call any more."""
        raise NotImplementedError

    def relay(self, data: bytes) -> None:
        """Bytes of the reply's body, as they came."""
        raise NotImplementedError

    def completed(self, data: bytes, boundary: int | None = None) -> None:
        """The reply has ended as its framing says. `data` is its rest; `boundary` the offset of the last chunk in it."""
        raise NotImplementedError

    def lost(self, upstream: Upstream, outcome: Outcome) -> None:
        """The connection broke, or what came on it was no HTTP."""
        raise NotImplementedError

    def failed(self, outcome: Outcome, *, reused: bool) -> None:
        """The attempt failed before a byte went out. `reused`: on a connection that had been used before, and unanswered."""
        raise NotImplementedError

    # --- connecting

    def connect(self, target: Target, data: bytes, *, fresh: bool = False) -> None:
        """Sends the request to `target`, on an idle connection if there is one and `fresh` is not asked for."""
        self.target = target
        if target.idle and not fresh:
            upstream = target.idle.pop()
            self.upstream = upstream
            self.state = WAITING
            upstream.send(self, data)
            return
        self.state = CONNECTING
        self._dialling = asyncio.get_running_loop().create_task(self._dial(target, data))

    async def _dial(self, target: Target, data: bytes) -> None:
        try:
            upstream = await target.dial()
        except (OSError, ValueError) as error:  # a host that is no name is a ValueError
            if self.state == CONNECTING and self.target is target:
                self._dialling = None
                self.failed(Outcome.TLS if isinstance(error, ssl.SSLError) else Outcome.CONNECT, reused=False)
            return
        self._dialling = None
        if self.state != CONNECTING or self.target is not target:
            upstream.abort()
            return
        if upstream.transport.is_closing():
            self.failed(Outcome.RESET, reused=False)
            return
        self.upstream = upstream
        self.state = WAITING
        self.connected()
        upstream.send(self, data)

    def connected(self) -> None:
        """A fresh connection is there."""

    def let_go(self) -> None:
        """Drops the attempt under way: the connection is ended, so that whatever works for it stops."""
        dialling, self._dialling = self._dialling, None
        if dialling is not None:
            dialling.cancel()
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.abort()
