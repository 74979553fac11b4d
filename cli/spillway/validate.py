"""`spillway validate PATH...` says whether resource documents are good.

It reads what `spillway run` and the API server would read and says everything that is wrong at once, one line a fault:
`file:line: spec.path: what is wrong and what to do`. Exit status 0: all good (warnings may be shown), 1: faults, or nothing to read.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from spillway_operator.api.crosscheck import cross_check
from spillway_operator.api.documents import SETTINGS_FILE, load_paths, resource_files

if TYPE_CHECKING:
    Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no public name for it

_DESCRIPTION = f"""\
Check resource documents (ModelBackend, ModelRoute) without applying them.

Every fault is one line, all of them at once:

  FILE:LINE: PATH IN THE DOCUMENT: what is wrong and what to do

The rules are those of the CRDs, so what passes here is accepted by the API server, and beyond them
what shows only between documents: two routes that claim one model, a backend that no file declares.

In folders, *.yaml and *.yml files are read, at any depth; hidden ones are not, nor is {SETTINGS_FILE},
which holds the settings of `spillway run`.
"""


def add_parser(subparsers: Subparsers) -> argparse.ArgumentParser:
    """Add the sub-command to the command's parser."""
    parser = subparsers.add_parser(
        "validate",
        help="check resource documents, without applying them",
        description=_DESCRIPTION,
        epilog="exit status: 0 if every document is valid, 1 if not. Warnings alone leave it 0.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="a YAML file, or a folder of them")
    parser.set_defaults(run=run)
    return parser


def run(args: argparse.Namespace) -> int:
    """Check the documents and print what is wrong; the exit status."""
    files = [path for path in dict.fromkeys(resource_files(args.paths)) if path.name != SETTINGS_FILE]
    loaded = load_paths(files)
    unread = [problem.object for problem in loaded.errors if problem.object]
    problems = [*loaded.problems, *cross_check(loaded.objects, unread)]
    for problem in sorted(problems, key=lambda problem: (problem.file, problem.line)):
        print(problem)
    warnings = sum(problem.warning for problem in problems)
    if errors := len(problems) - warnings:
        print(f"{_count(errors, 'error')} in {_count(len(files), 'file')}", file=sys.stderr)
        return 1
    if not loaded.objects:
        print(
            f"no documents in {', '.join(map(str, args.paths))}: name a YAML file, or a folder with *.yaml files", file=sys.stderr
        )
        return 1
    noted = f" ({_count(warnings, 'warning')})" if warnings else ""
    valid = len(loaded.objects)
    print(f"{_count(valid, 'document')} {'is' if valid == 1 else 'are'} valid{noted}")
    return 0


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
