"""Free ports on loopback.

Ports are taken below the range from which the kernel numbers outgoing connections, so that no connection sits on a port
between its choice and its use, and are kept for the purpose they were chosen for.
"""

from __future__ import annotations

import socket
from pathlib import Path

FIRST_PORT = 20_000
_RANGE_FILE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen there at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError):
            return False
        return True


def first_ephemeral_port() -> int:
    """Where the kernel's range of outgoing ports begins."""
    try:
        return int(_RANGE_FILE.read_text(encoding="ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 32_768


class Ports:
    """Chooses ports from a place that `seed` determines, so that runs side by side rarely try the same."""

    def __init__(self, seed: int) -> None:
        end = first_ephemeral_port()
        self._range = range(FIRST_PORT, end) if end > FIRST_PORT + 1000 else range(10_000, max(end, 11_000))
        self._next = seed * 211 % len(self._range)
        self._of: dict[str, int] = {}

    def __call__(self, purpose: str) -> int:
        """The port of a purpose, the same as long as it is not given up. Raises `OSError` if none is free."""
        if purpose not in self._of:
            self._of[purpose] = self._choose()
        return self._of[purpose]

    def give_up(self, purpose: str) -> None:
        """The next time, choose another."""
        self._of.pop(purpose, None)

    def info(self) -> dict[str, int]:
        """Ports in use, by purpose."""
        return dict(self._of)

    def _choose(self) -> int:
        taken = set(self._of.values())
        for _ in self._range:
            port = self._range[self._next]
            self._next = (self._next + 1) % len(self._range)
            if port not in taken and is_free(port):
                return port
        raise OSError("no free port below the range of outgoing connections")
