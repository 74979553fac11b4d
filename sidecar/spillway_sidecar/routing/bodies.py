"""What is read of a request's body, as messages of msgspec: only the fields that routing looks at."""

from __future__ import annotations

from typing import Final

import msgspec


class Body(msgspec.Struct, gc=False):
    """What each request is routed by."""

    model: str
    stream: bool | None = None


class Session(msgspec.Struct, gc=False):
    """What ties it to others, where the route asks for it."""

    prompt_cache_key: str | None = None
    user: str | None = None


decode_body: Final = msgspec.json.Decoder(Body).decode
decode_session: Final = msgspec.json.Decoder(Session).decode
