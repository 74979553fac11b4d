"""What a policy is asked and told."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from spillway.simulate.engine import Engine
from spillway.simulate.loads import LoadPlane
from spillway.simulate.traffic import Request
from spillway_wire.loads import Load


@dataclass(frozen=True, slots=True)
class Scene:
    """What there is to choose among. `engines` is the truth, which only an oracle looks at; `plane` is what endpoints tell."""

    routers: int
    engines: Sequence[Engine]
    plane: LoadPlane
    rng: random.Random


class Policy:
    """One policy for all routers, each of which knows only what it met itself and what it was told.

    A subclass chooses; the rest is there to be overridden. `tick_seconds` above 0 asks for `tick`, `hears` for `report`.
    """

    tick_seconds = 0.0
    hears = False

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.count = len(scene.engines)
        self.random = scene.rng.random

    def choose(self, request: Request, now: float) -> int:
        """The endpoint for a request at `request.router`, none of `request.tried`; -1 for nowhere.

        It may set `request.bound`: where more tokens wait for their first one, the endpoint declines, and `choose` is asked again.
        """
        raise NotImplementedError

    def sent(self, request: Request, now: float) -> None:
        """It went to `request.endpoint`."""

    def admitted(self, request: Request, now: float) -> None:
        """The endpoint has taken it; its load was reported."""

    def first_token(self, request: Request, now: float) -> None:
        """Its first token came."""

    def ended(self, request: Request, now: float, *, ok: bool) -> None:
        """It ended, or the attempt failed. Called once for each `sent`."""

    def report(self, router: int, endpoint: int, load: Load, now: float) -> None:
        """A router hears an endpoint's load, on a reply or at an interval."""

    def tick(self, now: float) -> None:
        """Called each `tick_seconds`."""

    def other_than(self, tried: Sequence[int]) -> list[int]:
        """The endpoints that a request has not been at."""
        return [index for index in range(self.count) if index not in tried]
