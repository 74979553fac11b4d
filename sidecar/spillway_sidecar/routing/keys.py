"""What ties a request to others: the start of its prompt, and its session.

Routers must come to the same key without talking, so a key is a checksum of bytes. The prompt's start is the first `PREFIX_BYTES` from its
`messages` or `prompt` on, whatever stands before it in the body; of prompts that are shorter nothing is worth keeping together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from zlib import crc32

import msgspec

from spillway_sidecar.routing.bodies import decode_session
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.scheduling.profile import Profile
from spillway_wire.names import RequestType

PREFIX_BYTES: Final = 1024


def read_keys(facts: Facts, profile: Profile, fields: Mapping[bytes, bytes], body: bytes) -> None:
    """Writes into `facts` the keys that the profile goes by. For bodies that have been classified."""
    if profile.prefixes and facts.type is not RequestType.EMBEDDINGS:  # they leave nothing in a cache
        facts.prefix = prefix_key(body)
    if profile.session_header:
        facts.session = session_key(profile.session_header, fields, body)


def prefix_key(body: bytes) -> int:
    """The key of the prompt's start; 0 where the prompt is too short."""
    start = body.find(b'"messages"')
    if start < 0:
        start = body.find(b'"prompt"')
    if start < 0 or len(body) - start < PREFIX_BYTES:
        return 0
    return crc32(body[start : start + PREFIX_BYTES]) or 1


def session_key(header: bytes, fields: Mapping[bytes, bytes], body: bytes) -> int:
    """The key of the session: the header's value, else the body's `prompt_cache_key` or `user`; 0 where there is none."""
    value = fields.get(header)
    if value is None:
        try:
            named = decode_session(body)
        except (msgspec.ValidationError, RecursionError):
            return 0
        value = (named.prompt_cache_key or named.user or "").encode()
    return (crc32(value) or 1) if value else 0
