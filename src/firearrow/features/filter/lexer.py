"""Tokens of RocketMQ's SQL92 expressions (``SelectorParser``), one at a time.

Lazy on purpose: RocketMQ reads one token further than it needs and ignores the rest, so an
expression with rubbish behind that token is a good one.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

KEYWORDS: Final = frozenset(
    {"AND", "BETWEEN", "CONTAINS", "ENDSWITH", "FALSE", "IN", "IS", "NOT", "NULL", "OR"}
    | {"STARTSWITH", "TRUE"}
)
NAME, FLOAT, DECIMAL, STRING, END = "name", "float", "decimal", "string", "<EOF>"
TAB_COLUMNS: Final = 8

# ASCII only, as RocketMQ; the longest match of those that begin alike stands first.
_match_token = re.compile(
    r"(?P<name>[A-Za-z_$][A-Za-z0-9_$]*+)"
    r"|(?P<float>[0-9]++\.[0-9]*+(?:[eE][+-]?[0-9]++)?|\.[0-9]++(?:[eE][+-]?[0-9]++)?"
    r"|[0-9]++[eE][+-]?[0-9]++)"
    r"|(?P<decimal>0|[1-9][0-9]*+[lL]?)"
    r"|(?P<string>'[^']*(?:''[^']*)*')"
    r"|(?P<operator><>|>=|<=|[=><(),+-])"
).match
_skip_blanks = re.compile(r"[ \t\n\r\f]*+").match
_line_comment = re.compile(r"--[^\n\r]*+(?:\r\n|\n|\r)").match


class ExpressionSyntaxError(ValueError):
    """The text is no expression; the message says where and why."""


class Token(NamedTuple):
    """``kind`` is a keyword in capitals, an operator, or one of the names above."""

    kind: str
    image: str
    at: int


class Lexer:
    """Reads tokens from one expression."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        # A comment without an end of line is two minus signs.
        self._last_line_end = max(text.rfind("\n"), text.rfind("\r"))

    def next(self) -> Token:
        """The next token; ``END`` once there is none.

        Raises:
            ExpressionSyntaxError: no token begins here.
        """
        at = self._skip()
        text = self._text
        found = _match_token(text, at)
        if found is None:
            if at >= len(text):
                return Token(END, END, max(0, at - 1))
            raise ExpressionSyntaxError(
                f"Lexical error at {where(text, at)}. Encountered: {text[at]!r} ({ord(text[at])})"
            )
        self._at = found.end()
        image = found[0]
        kind = found.lastgroup or ""
        if kind == "operator":
            kind = image
        elif kind == NAME and image.upper() in KEYWORDS:
            kind = image.upper()
        return Token(kind, image, at)

    def _skip(self) -> int:
        """Pass blanks and comments; where the next token begins."""
        text, at = self._text, self._at
        while True:
            found = _skip_blanks(text, at)
            assert found is not None
            at = found.end()
            if text.startswith("/*", at):
                end = text.find("*/", at + 2)
                if end < 0:
                    return at
                at = end + 2
            elif text.startswith("--", at) and at < self._last_line_end:
                found = _line_comment(text, at)
                assert found is not None, "a line end follows"
                at = found.end()
            else:
                return at


def where(text: str, at: int) -> str:
    """``line 1, column 5`` as RocketMQ counts: UTF-16 units, tabs to the next multiple of eight."""
    line, column, before = 1 if text else 0, 0, ""
    for character in text[: at + 1]:
        column += 1 if character <= "\uffff" else 2
        if before == "\n" or (before == "\r" and character != "\n"):
            line, column = line + 1, 1
        if character == "\t":
            column += TAB_COLUMNS - 1 - (column - 1) % TAB_COLUMNS
        before = character
    return f"line {line}, column {column}"


def string_value(image: str) -> str:
    """What a string literal means: without its quotes, doubled quotes single."""
    return image[1:-1].replace("''", "'")
