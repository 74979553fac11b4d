"""The server's certificate from files that may change: cert-manager and the kubelet write new ones in place."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files of the certificate chain and its key."""

    certificate: Path
    key: Path


class ServerCertificate:
    """A server's TLS context that follows its files. TLS 1.3 only: our peer is an API server."""

    def __init__(self, files: CertificateFiles) -> None:
        """Raises `OSError` where the files cannot be read or do not fit together."""
        self._files = files
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._signature = self._look()
        self._load()
        self._reloads = 0
        self._error = ""

    def refresh(self) -> None:
        """Takes the files anew where they have changed.

        Files that do not fit together, as while they are written, are left for the next look; connections go on with what was
        read last.
        """
        try:
            signature = self._look()
            if signature == self._signature:
                return
            # A context keeps what it has when one of the two is wrong: tried on another first.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._files.certificate, self._files.key)
            self._load()
        except OSError as error:
            self._error = f"{type(error).__name__}: {error}"[:200]
            return
        self._signature, self._error = signature, ""
        self._reloads += 1

    def info(self) -> dict[str, object]:
        """How often the files were taken anew, and what is wrong with them."""
        return {"reloads": self._reloads, "error": self._error}

    def _look(self) -> tuple[tuple[int, int], ...]:
        return tuple((stat.st_mtime_ns, stat.st_ino) for stat in (self._files.certificate.stat(), self._files.key.stat()))

    def _load(self) -> None:
        self.context.load_cert_chain(self._files.certificate, self._files.key)
