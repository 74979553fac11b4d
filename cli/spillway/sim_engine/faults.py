"""What goes wrong, and for whom.

Each fault is set on its own, at start or at run time, and strikes a request with its probability until its count is used up.
`decide` draws once for each fault that is set, in a fixed order, so a seed repeats a run. `slow` is no matter of chance: it
stretches the engine's steps for as long as it is set.
"""

from __future__ import annotations

import random
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

Probability = Annotated[float, Meta(ge=0, le=1)]
Count = Annotated[int, Meta(ge=1)] | None
Scope = Literal["requests", "all"]  # "all": also /health, /metrics and /v1/models


class Chance(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How often, how many times (None: no end), and on which paths."""

    probability: Probability = 1.0
    count: Count = None
    scope: Scope = "requests"


class Delay(Chance, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The request is taken in only after so long."""

    seconds: Annotated[float, Meta(gt=0, le=3600)] = 1.0


class Cut(Chance, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The connection ends in the middle of the reply, after so many chunks."""

    chunks: Annotated[int, Meta(ge=0)] = 5


class Slow(Struct, frozen=True, forbid_unknown_fields=True):
    """Every step takes this many times as long."""

    factor: Annotated[float, Meta(gt=0, le=1000)] = 3.0


class FaultSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The faults that are set; the ones that are None are not."""

    delay: Delay | None = None
    hang: Chance | None = None  # accepts and says nothing
    reset: Chance | None = None  # RST
    error: Chance | None = None  # 500 at once
    cut: Cut | None = None
    slow: Slow | None = None


class _Change(Struct, frozen=True, forbid_unknown_fields=True):
    """Faults to set (an object), to clear (null) or to leave (absent)."""

    delay: Delay | UnsetType | None = UNSET
    hang: Chance | UnsetType | None = UNSET
    reset: Chance | UnsetType | None = UNSET
    error: Chance | UnsetType | None = UNSET
    cut: Cut | UnsetType | None = UNSET
    slow: Slow | UnsetType | None = UNSET


class Strike(Struct, frozen=True):
    """What happens to one request. At most one of reset, hang and error; delay and cut may come with the rest."""

    reset: bool = False
    hang: bool = False
    error: bool = False
    delay_seconds: float = 0.0
    cut_after_chunks: int | None = None


NOTHING = Strike()


class Faults:
    """The faults in force, and their dice."""

    def __init__(self, rng: random.Random, settings: FaultSettings | None = None) -> None:
        self._rng = rng
        self.settings = settings or FaultSettings()
        self.struck: dict[str, int] = {}

    @property
    def slowdown(self) -> float:
        """Factor on the engine's steps."""
        return self.settings.slow.factor if self.settings.slow else 1.0

    def change(self, body: bytes) -> None:
        """Set, clear or leave each fault as a JSON object says. Raises `msgspec.DecodeError`."""
        change = msgspec.json.decode(body, type=_Change)
        self.settings = msgspec.structs.replace(
            self.settings,
            **{name: value for name in _Change.__struct_fields__ if (value := getattr(change, name)) is not UNSET},
        )

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self.settings = FaultSettings()

    def decide(self, *, request: bool) -> Strike:
        """What happens to the next request (`request=False`: a look at health or metrics)."""
        if self.settings == FaultSettings():
            return NOTHING
        if self._strikes("reset", request):
            return Strike(reset=True)
        if self._strikes("hang", request):
            return Strike(hang=True)
        delay, cut = self.settings.delay, self.settings.cut
        return Strike(
            error=self._strikes("error", request),
            delay_seconds=delay.seconds if delay and self._strikes("delay", request) else 0.0,
            cut_after_chunks=cut.chunks if cut and self._strikes("cut", request) else None,
        )

    def info(self) -> dict[str, object]:
        """Faults as set (counts: what is left of them), and how often each has struck."""
        return {"faults": msgspec.to_builtins(self.settings), "struck": dict(self.struck)}

    def _strikes(self, name: str, request: bool) -> bool:
        chance: Chance | None = getattr(self.settings, name)
        if chance is None or not (request or chance.scope == "all"):
            return False
        if chance.probability < 1 and self._rng.uniform(0, 1) >= chance.probability:
            return False
        self.struck[name] = self.struck.get(name, 0) + 1
        if chance.count is not None:
            left = msgspec.structs.replace(chance, count=chance.count - 1) if chance.count > 1 else None
            self.settings = msgspec.structs.replace(self.settings, **{name: left})
        return True


def parse_fault(text: str) -> tuple[str, dict[str, object]]:
    """`NAME[:KEY=VALUE[,KEY=VALUE...]]` as on a command line, e.g. `delay:seconds=0.5,probability=0.1`.

    Raises `ValueError` saying what is wrong.
    """
    name, _, rest = text.partition(":")
    values: dict[str, object] = {}
    for part in filter(None, rest.split(",")):
        key, separator, value = part.partition("=")
        if not separator:
            raise ValueError(f"{part!r} in {text!r} is not KEY=VALUE")
        try:
            values[key] = msgspec.json.decode(value)
        except msgspec.DecodeError:
            values[key] = value
    try:
        msgspec.convert({name: values}, FaultSettings)
    except msgspec.ValidationError as error:
        known = ", ".join(FaultSettings.__struct_fields__)
        raise ValueError(f"{text!r}: {error}; faults are {known}") from error
    return name, values


def settings_of(texts: list[str]) -> FaultSettings:
    """Settings from command-line texts; a later one of the same name wins. Raises `ValueError`."""
    return msgspec.convert(dict(parse_fault(text) for text in texts), FaultSettings)
