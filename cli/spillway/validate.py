"""`spillway validate PATH...` says whether resource documents are good.

It reads what `spillway run` and the API server would read and says everything that is wrong at once, one line a fault:
`file:line: spec.path: what is wrong and what to do`. Faults go to stdout, being the answer; the count goes to stderr.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from spillway.options import Parsers, add_command

DESCRIPTION = """\
Checks resource documents (ModelBackend, ModelRoute) without applying them. Every fault is a
line, all of them at once:

  file:line: spec.path: what is wrong and what to do

The rules are those of the CRDs, so what passes here passes the API server. Beyond them it checks
what shows only between documents: two routes that claim one model name, and (as a warning) a route
to a backend that no file declares.

Of a folder, *.yaml and *.yml files are read at any depth; hidden ones are not, nor is
spillway.yaml, which holds the settings of `spillway run`.
"""

EXAMPLES = """
examples:
  spillway validate my-routes/            a folder
  spillway validate a.yaml b.yaml         files, checked together
  kubectl get mroute -A -o yaml > all.yaml; spillway validate all.yaml

exit codes: 0 every document is valid (there may be warnings), 1 faults or no documents,
2 the command line is wrong
"""


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    parser = add_command(subparsers, "validate", DESCRIPTION, EXAMPLES, run)
    parser.add_argument("paths", nargs="+", metavar="PATH", type=Path, help="a YAML file, or a folder of them")


def run(args: argparse.Namespace) -> int:
    """Check the documents and print what is wrong; the exit code."""
    from spillway_operator.api.crosscheck import cross_check
    from spillway_operator.api.documents import SETTINGS_FILE, load_paths, resource_files

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
