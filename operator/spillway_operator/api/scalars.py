"""YAML scalars as the values that JSON has, read as the API server reads them.

Dates and clock times stay text, numbers may have `_` between their digits, `5.0` is 5, and infinity is refused.
"""

from __future__ import annotations

import math
from typing import Any, Final

_TRUE: Final = frozenset({"yes", "true", "on"})


def described(data: Any) -> str:
    """What a scalar that is no text was read as."""
    if data is None:
        return "empty"
    return "true or false" if isinstance(data, bool) else "a number"


def convert(name: str, text: str) -> Any:
    """The value of a scalar that YAML resolves to `name` (`int`, `bool`, ...). Raises `ValueError` where no JSON can hold it."""
    if name == "null":
        return None
    if name == "bool":
        return text.lower() in _TRUE
    if name in {"int", "float"} and ":" not in text:  # 1:30 is a clock time, not the 90 that YAML 1.1 makes of it
        return _integer(text) if name == "int" else _float(text)
    return text


def _integer(text: str) -> int:
    digits = text.replace("_", "")
    sign = -1 if digits.startswith("-") else 1
    digits = digits.lstrip("+-")
    if digits.startswith(("0b", "0x")):
        return sign * int(digits, 0)
    return sign * int(digits, 8 if digits.startswith("0") and digits != "0" else 10)


def _float(text: str) -> int | float:
    number = float(text.replace("_", ""))
    if not math.isfinite(number):
        raise ValueError("not finite")
    return int(number) if number.is_integer() else number
