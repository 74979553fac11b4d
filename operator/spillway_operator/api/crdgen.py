"""Writes the CRDs: `python -m spillway_operator.api.crdgen [--check] crds/`.

One file a kind. With `--check` nothing is written; files that differ from the models are named, with the difference, and the
exit status is 1.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import yaml

from spillway_operator.api.meta import GROUP
from spillway_operator.api.schema import KINDS, crd

HEADER: Final = (
    "# Made by `python -m spillway_operator.api.crdgen crds/` from the models in operator/spillway_operator/api. Change those.\n"
)


class _Plain(yaml.SafeDumper):
    """Writes equal parts in full each time; anchors in a CRD help nobody."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def files() -> dict[str, str]:
    """The text of each file by its name."""
    return {
        f"{GROUP}_{about.plural}.yaml": HEADER + yaml.dump(crd(kind), Dumper=_Plain, width=120) for kind, about in KINDS.items()
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; the process's exit status."""
    return write_or_check(files(), "spillway_operator.api.crdgen", arguments)


def write_or_check(made: Mapping[str, str], module: str, arguments: Sequence[str] | None) -> int:
    """Write the texts by name into the folder of the command line, or tell how what is there differs; the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description="Write the CRDs from the models.")
    parser.add_argument("folder", type=Path, help="where the files are, e.g. crds/")
    parser.add_argument(
        "--check", action="store_true", help="write nothing; exit 1 and show the difference where a file is not up to date"
    )
    options = parser.parse_args(arguments)
    stale = False
    for name, text in made.items():
        path = options.folder / name
        if not options.check:
            path.write_text(text, encoding="utf-8")
            continue
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found != text:
            stale = True
            sys.stdout.writelines(
                difflib.unified_diff(
                    found.splitlines(keepends=True), text.splitlines(keepends=True), str(path), f"{name} as the models say"
                )
            )
    if stale:
        sys.stderr.write(f"not up to date: run `python -m {module} {options.folder}`\n")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
