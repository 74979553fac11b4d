"""`spillway version`."""

from __future__ import annotations

import argparse
import platform

from spillway.options import Parsers, add_command

EXAMPLES = """
examples:
  spillway version
"""


def add_parser(subparsers: Parsers) -> None:
    """Add the sub-command."""
    add_command(subparsers, "version", "Prints the versions of Spillway and Python.", EXAMPLES, run)


def run(args: argparse.Namespace) -> int:  # noqa: ARG001 - a sub-command's signature
    """Print one line."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        release = version("spillway")
    except PackageNotFoundError:
        release = "unknown (not installed)"
    print(f"spillway {release}, Python {platform.python_version()}")
    return 0
