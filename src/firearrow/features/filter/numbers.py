"""Texts as numbers, the way Java reads them: ``Integer``, ``Long`` and ``Double.valueOf``."""

from __future__ import annotations

import math
import re
from typing import Final

INT32_MAX: Final = (1 << 31) - 1
INT64_MAX: Final = (1 << 63) - 1
_INT64_DIGITS_MAX: Final = 19

# Any decimal digits of the basic plane, as ``Character.digit``.
_integer = re.compile(r"([+-]?)(\d+)").fullmatch
_decimal = re.compile(
    r"([+-]?)(?:NaN|Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?[fFdD]?)"
).fullmatch
_hexadecimal = re.compile(
    r"([+-]?0[xX](?:[0-9a-fA-F]+\.?|[0-9a-fA-F]*\.[0-9a-fA-F]+)[pP][+-]?[0-9]+)[fFdD]?"
).fullmatch
# What ``String.trim`` takes away.
_BLANKS: Final = "".join(map(chr, range(0x21)))

DoubleKey = tuple[bool, float, float]


class NotANumberError(ValueError):
    """``NumberFormatException``: the text is no number of the wanted kind."""


def int32(text: str) -> int:
    """``Integer.valueOf``."""
    return _parse(text, INT32_MAX)


def int64(text: str) -> int:
    """``Long.valueOf``."""
    return _parse(text, INT64_MAX)


def _parse(text: str, maximum: int) -> int:
    if text.isascii() and text.isdecimal() and len(text) <= _INT64_DIGITS_MAX:
        number = int(text)
    else:
        found = _integer(text)
        if found is None or (not text.isascii() and max(text) > "\uffff"):
            raise NotANumberError(text)
        digits = found[2].lstrip("0") or "0"
        if len(digits) > _INT64_DIGITS_MAX:
            raise NotANumberError(text)
        number = int(found[1] + digits)
    if not -maximum - 1 <= number <= maximum:
        raise NotANumberError(text)
    return number


def double(text: str) -> float:
    """``Double.valueOf``."""
    text = text.strip(_BLANKS)
    if _decimal(text) is not None:
        return float(text.rstrip("fFdD") if text[-1] in "fFdD" else text)
    found = _hexadecimal(text)
    if found is None:
        raise NotANumberError(text)
    try:
        return float.fromhex(found[1])
    except OverflowError:
        return -math.inf if text[0] == "-" else math.inf


def double_key(number: float) -> DoubleKey:
    """Orders doubles as ``Double.compareTo``: -0.0 before 0.0, NaN equal to itself and last."""
    if number != number:
        return True, 0.0, 0.0
    return False, number, math.copysign(1.0, number)
