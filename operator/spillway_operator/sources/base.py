"""What every source is to the composition root."""

from __future__ import annotations

from typing import Any, Protocol


class Source(Protocol):
    """Keeps the store in line with the place where users declare resources."""

    async def start(self) -> None:
        """Returns when all that is there has been put into the store once; follows changes from then on."""

    async def stop(self) -> None:
        """Stop following."""

    def info(self) -> dict[str, Any]:
        """What is watched, and how it goes."""
