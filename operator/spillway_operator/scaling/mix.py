"""Which of several backends of one model serve a demand: the cheapest grow first and shrink last.

By the cost of a token the backends stand in a row, and the demand fills it from the cheap end. How much is left for a backend depends on
what one asks: it *grows* only for what the cheaper ones could not do with all the replicas that they may have, and it *shrinks* only by
what cheaper replicas that are ready can do. In between it stays as it is, so that a dear replica goes when the cheap one that replaces it is
there, and none is started for the time that takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from spillway_operator.scaling.cost import per_million_tokens


@dataclass(frozen=True, slots=True)
class Option:
    """One backend."""

    name: str
    hourly: float  # price of a replica
    tokens_per_second: float  # of a replica, above 0
    ready: int
    asked_for: int
    most: int

    @property
    def per_million_tokens(self) -> float:
        """Price of a million tokens, of a replica that has all it can do."""
        return per_million_tokens(self.hourly, self.tokens_per_second)


def needs(options: Iterable[Option], tokens_per_second: float) -> dict[str, float]:
    """Replicas that each backend needs, not rounded, for what is asked of all together."""
    found = {}
    could = does = 0.0  # of the cheaper ones: with all replicas that they may have, and with those that are ready
    for option in sorted(options, key=lambda each: (each.per_million_tokens, each.name)):
        grows = max(0.0, tokens_per_second - could) / option.tokens_per_second
        stays = max(0.0, tokens_per_second - does) / option.tokens_per_second
        found[option.name] = max(min(grows, float(option.most)), min(stays, float(option.asked_for)))
        could += option.most * option.tokens_per_second
        does += option.ready * option.tokens_per_second
    return found


def groups(sharing: Iterable[Sequence[str]]) -> list[set[str]]:
    """Names that are connected by standing in one of the sequences together."""
    found: list[set[str]] = []
    for names in sharing:
        merged = set(names)
        apart = []
        for group in found:
            if group & merged:
                merged |= group
            else:
                apart.append(group)
        found = [*apart, merged]
    return found
