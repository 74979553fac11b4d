r"""Cases as data: TOML files, a table for each case, with the bytes as they go over the wire.

A string stands for bytes, one for each character (Latin-1), so that what a file shows is what is sent: in strings of several lines `\r`
before a line's end makes it CRLF, a line without is a bare LF. `⟨text*n⟩` stands for n times the text, in which `№` is the number of
the time, from 0.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
_REPEATED: Final = re.compile(r"⟨(.+?)\*([0-9]+)⟩", re.DOTALL)


def wire(text: str) -> bytes:
    """The bytes that a string of a corpus stands for."""
    return _REPEATED.sub(lambda m: "".join(m[1].replace("№", str(n)) for n in range(int(m[2]))), text).encode("latin-1")


def cases(kind: str, *names: str) -> dict[str, dict[str, Any]]:
    """All cases of the folder `kind`, or of the files named, by the case's name, which is unique there. `bytes` are bytes."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((HERE / kind).glob("*.toml")):
        if names and path.stem not in names:
            continue
        for name, case in tomllib.loads(path.read_text(encoding="utf-8")).items():
            assert name not in found, f"{path.name}: {name!r} is there twice"
            found[name] = {"file": path.stem, **case, "bytes": wire(case["bytes"])}
    assert found, kind
    return found


def exceptions() -> list[dict[str, Any]]:
    """Where we may take what another parser refuses: the `judge`, patterns of the `request` (method and target) or the `bytes`, the `reason`."""
    found: list[dict[str, Any]] = tomllib.loads((HERE / "exceptions.toml").read_text(encoding="utf-8"))["exception"]
    return found
