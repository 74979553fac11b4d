"""How options look and behave in every sub-command.

Help shows a one-line purpose, groups with their defaults, and examples at the bottom. Each option can also be given as the
environment variable `SPILLWAY_<OPTION>`, which the command line overrides. Only argparse is imported here, so that help is
there at once.
"""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Parsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - argparse has no public name for it
else:
    Parsers = Any

Run = Callable[[argparse.Namespace], int]


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Shows defaults that are worth showing; a text that has line breaks keeps them, another is filled to the width."""

    def __init__(self, prog: str, **more: Any) -> None:
        super().__init__(prog, **more)
        self._action_max_length = 14  # argparse forgets the indentation of sub-commands and would break the longest

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return super()._fill_text(text, width, indent) if "\n" in text else textwrap.fill(text, width)

    def _format_action(self, action: argparse.Action) -> str:
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - argparse has no public name for it
            return self._join_parts([self._format_action(part) for part in action._get_subactions()])  # noqa: SLF001
        return super()._format_action(action)

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text = action.help or ""
        shown = action.default not in (None, argparse.SUPPRESS, False, "") and action.default != []
        return f"{text} (default: %(default)s)" if action.option_strings and shown and "(default" not in text else text


def formatter(prog: str) -> argparse.HelpFormatter:
    """Help in at most 100 columns, with room for long option names."""
    columns = min(100, int(os.environ.get("COLUMNS") or 0) or _terminal_columns())
    return _Formatter(prog, max_help_position=30, width=columns)


def _terminal_columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 100


def add_command(subparsers: Parsers, name: str, description: str, examples: str, run: Run) -> argparse.ArgumentParser:
    """A sub-command in the house form: `description` above its options, `examples` below."""
    parser = subparsers.add_parser(
        name, description=description, epilog=examples.strip("\n"), formatter_class=formatter, allow_abbrev=False
    )
    parser.set_defaults(run=run)
    return parser


def positive(text: str) -> float:
    """A number above zero, for `type=`."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number above zero")
    return value


def positive_int(text: str) -> int:
    """A whole number above zero, for `type=`."""
    value = int(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above zero")
    return value


def apply_environment(parser: argparse.ArgumentParser, environ: Mapping[str, str]) -> None:
    """Make `SPILLWAY_<OPTION>` the default of each long option that takes one value.

    The text is converted and checked as if it stood on the command line.
    """
    for action in parser._actions:  # noqa: SLF001 - argparse tells its options in no other way
        names = [name for name in action.option_strings if name.startswith("--")]
        if not names or action.nargs == 0 or isinstance(action.default, list):
            continue
        value = environ.get("SPILLWAY_" + names[0].removeprefix("--").replace("-", "_").upper())
        if value is not None:
            action.default = value
