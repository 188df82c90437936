"""Numbers in texts that anybody may have written: properties, handles."""

from __future__ import annotations

from typing import Final

INT32_MAX: Final = 2**31 - 1
INT64_MAX: Final = 2**63 - 1
_DIGITS_MAX: Final = 19


def whole_number(text: str, maximum: int = INT64_MAX) -> int | None:
    """A whole number in ASCII digits, with a sign or without, of at most ``maximum`` either way;
    ``None`` for every other text, however long."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if len(digits) > _DIGITS_MAX or not (digits.isascii() and digits.isdecimal()):
        return None
    value = int(text)
    return value if -maximum <= value <= maximum else None
