"""Where the webhook takes the installation's settings from: a JSON file (the chart's ConfigMap) and the CA's file beside it.

Both are looked at again now and then. A file that has become unreadable changes nothing: pods go on being injected as before.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec

from spillway_operator.injection import InjectionConfig
from spillway_operator.injection.config import from_document


class InjectionSource:
    """`config` is the one in force. Raises `OSError` or `ValueError` where there is none to begin with."""

    def __init__(self, file: Path, ca_file: Path | None = None) -> None:
        self._file = file
        self._ca_file = ca_file
        self._error = ""
        self.config: InjectionConfig = self._read()

    def refresh(self) -> None:
        """Reads the files again."""
        try:
            self.config = self._read()
            self._error = ""
        except (OSError, ValueError) as error:
            self._error = f"{type(error).__name__}: {error}"[:200]

    def info(self) -> dict[str, object]:
        """The template in force, and what is wrong with the files."""
        return {"image": self.config.image, "hash": self.config.hash, "error": self._error}

    def _read(self) -> InjectionConfig:
        try:
            document = msgspec.json.decode(self._file.read_bytes())
        except msgspec.DecodeError as error:
            raise ValueError(f"{self._file}: {error}") from error
        config = from_document(document)
        if self._ca_file is not None and self._ca_file.exists():
            config = dataclasses.replace(config, operator_ca=self._ca_file.read_text(encoding="ascii"))
        return config
