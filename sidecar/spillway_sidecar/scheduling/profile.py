"""A profile: how a request's endpoint is found among those of a pool."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeVar

from spillway_sidecar.scheduling.filters.eligible import Candidate
from spillway_sidecar.scheduling.pickers.soonest import soonest
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import Request, View
from spillway_sidecar.scheduling.state import EndpointState

E = TypeVar("E", bound=EndpointState)


class Profile:
    """Chooses by predicted wait."""

    __slots__ = ("keys_from", "prefixes", "session_header")

    def __init__(self) -> None:
        self.prefixes = True  # whether it goes by how prompts begin
        self.session_header = b""  # the header that names a session; empty where it does not go by sessions
        self.keys_from = 1536  # bytes of a body from which keys are read

    def pick(
        self, pool: Pool[E], request: Request, view: View, tried: Collection[E] = (), candidates: list[Candidate] | None = None
    ) -> E | None:
        """The endpoint to take, or None when every one is eliminated. Appends what it looked at to `candidates`."""
        return soonest(pool, request, view, tried, candidates)


DEFAULT: Final = Profile()
