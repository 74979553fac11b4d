"""The tokens of a request as an engine counts them, as a message of msgspec."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

_Count = Annotated[int, msgspec.Meta(ge=0, lt=1_000_000_000)]


class Usage(msgspec.Struct, gc=False):
    """The `usage` of a reply."""

    prompt_tokens: _Count
    completion_tokens: _Count | None = None


decode_usage: Final = msgspec.json.Decoder(Usage).decode
