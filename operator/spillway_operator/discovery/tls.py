"""The certificate of a port, read again when its files change.

Certificates of a cluster are replaced while we run: files are looked at every few seconds, and connections made from then on get
what they hold. Files that cannot be used (half written, a key that does not fit) leave what is in use.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_log = logging.getLogger(__name__)

_Look = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files."""

    certificate: Path
    key: Path


class ServerCertificate:
    """A TLS context whose certificate follows its files. TLS 1.3 only. Raises OSError (`ssl.SSLError` is one) where it cannot begin."""

    def __init__(self, files: CertificateFiles, *, look_seconds: float = 5.0) -> None:
        self._files = files
        self._look_seconds = look_seconds
        self._loads = 0
        self._trouble = ""
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._look = self._looks()
        self._load()

    def _load(self) -> None:
        # A context of its own first: loading a wrong key into one that is in use would leave it with neither.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._files.certificate, self._files.key)
        self.context.load_cert_chain(self._files.certificate, self._files.key)
        self._loads += 1

    def _looks(self) -> tuple[_Look, _Look]:
        one, other = (path.stat() for path in (self._files.certificate, self._files.key))
        return (one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns), (
            other.st_ino, other.st_size, other.st_mtime_ns, other.st_ctime_ns,
        )  # fmt: skip

    def reload(self) -> bool:
        """Look once; True if another certificate is in use."""
        try:
            look = self._looks()
            if look == self._look:
                return False
            self._load()
        except OSError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                _log.warning("tls: the certificate in use stays: %s", error)
            return False
        self._look, self._trouble = look, ""
        _log.info("tls: another certificate is in use, from %s", self._files.certificate)
        return True

    async def follow(self) -> None:
        """Looks for ever."""
        while True:
            await asyncio.sleep(self._look_seconds)
            self.reload()

    def info(self) -> dict[str, Any]:
        """Where it is from."""
        return {"certificate": str(self._files.certificate), "loads": self._loads, "trouble": self._trouble}
