"""Generated SQL92 expressions and property sets, the same for the same seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from firearrow.codec.properties import format_properties

# Every rule of the language, one line each; random ones come on top.
RULES = [
    "a > 5", "a >= 5", "a < 5", "a <= 5", "a = 5", "a <> 5", "5 < a", "5 = a", "'5' = a",
    "a = '5'", "a <> '5'", "'5' <> a", "a = b", "a <> b", "a < b", "a >= b", "a > 5.0",
    "a = 3000000000", "a > 3000000000", "a = 5L", "a = 0L", "a = 05", "a = 0x5", "a = -5",
    "a > -2147483648", "a = 9223372036854775807", "a = 9223372036854775808",
    "a = -9223372036854775808", "a = 5.", "a = .5", "a = 5E10", "a = 5.0e-3", "a = 0.0",
    "a = 1e400", "a = 1e-400", "a = 4.9e-324", "a = 2.0e-324", "a = 5.e1", "a = 5e", "a = 1.2.3",
    "a..b", "a = ..5", "1 = 1", "1 = 1.0", "1 < 2.5", "3000000000 = 3e9",
    "9007199254740993 = 9007199254740992.0", "'1' = 1", "1 = '1'", "1.0 = '1'", "1 = 'x'",
    "a = TRUE", "TRUE = a", "a = FALSE", "a <> TRUE", "TRUE = TRUE", "TRUE = 'true'",
    "'true' = TRUE", "TRUE = 1", "1 = TRUE", "(a > 5) = TRUE", "TRUE = (a > 5)",
    "(a > 5) = (b > 5)", "(a > 5) = 'true'", "'true' = (a > 5)", "(a > 5) = b", "b = (a > 5)",
    "(a > 5) = 1", "(a > 5) <> FALSE", "a IS NULL", "a IS NOT NULL", "NULL IS NULL", "5 IS NULL",
    "(a > 5) IS NULL", "a IS NULL IS NULL", "a IS NULL = TRUE", "a = NULL", "NULL = a",
    "a > NULL", "NULL", "NOT NULL", "a IS", "a IS NOT", "a IS NOT 5", "a IS 5", "NULL AND TRUE",
    "NULL OR TRUE", "NULL AND FALSE", "a", "NOT a", "NOT NOT a", "TRUE", "FALSE", "5", "'x'",
    "NOT 5", "NOT 'x'", "NOT TRUE", "a AND b", "a OR b", "5 AND a", "a AND 5", "a AND 'x'",
    "NOT a > 5", "NOT (a > 5)", "NOT (a = 'x')", "NOT a = b", "NOT a IS NULL", "- a = 5",
    "-5 = a", "- -5 = a", "+5 = a", "+ + a = 5", "- 'x' = a", "-TRUE = a", "- NULL = a",
    "-(a > 5) IS NULL", "-(a > 5) = b", "b = -(a > 5)", "a > -b", "-a IS NULL", "--5 = a",
    "a > --5\n + 3", "a > --5", "a BETWEEN 0 AND 3", "a NOT BETWEEN 0 AND 3", "a BETWEEN 5 AND 1",
    "a NOT BETWEEN 5 AND 1", "a BETWEEN -5 AND -6", "a BETWEEN b AND c", "a BETWEEN 1 AND 1",
    "a BETWEEN 1.5 AND 1", "a BETWEEN 1 AND 2.5", "a BETWEEN 'x' AND 'y'", "a BETWEEN NULL AND 5",
    "a BETWEEN TRUE AND 5", "5 BETWEEN a AND b", "'x' BETWEEN 1 AND 2",
    "a BETWEEN 1 AND 3000000000", "a BETWEEN 3000000000 AND 5", "(a > 5) BETWEEN 1 AND 2",
    "a BETWEEN 1 OR 2", "a BETWEEN 1", "a BETWEEN 1 AND", "-(a > 5) BETWEEN 1 AND 2",
    "-(a > 5) NOT BETWEEN 1 AND 2", "a BETWEEN -(b > 5) AND 3", "a BETWEEN 1 AND 3 AND b = 'x'",
    "a > 1 BETWEEN 1 AND 2", "a IN ('x')", "a IN ('x','y', 'z')", "a NOT IN ('x','y')",
    "a in ('x','it''s')", "a IN ()", "a IN (5)", "a IN ('x',)", "a IN 'x'", "a IN ('x'",
    "(a) IN ('x')", "'x' IN ('x')", "5 IN ('5')", "a IN ('x') IN ('y')",
    "a IN ('1','2','3','4','5','6')", "-a IN ('5')", "NOT a IN ('x')", "a NOT 5", "a NOT",
    "a NOT b", "a NOT @", "a NOT NOT IN ('x')", "a IS NULL NOT b", "a CONTAINS 'x'",
    "a NOT CONTAINS 'x'", "a STARTSWITH 'x'", "a NOT STARTSWITH 'x'", "a ENDSWITH 'x'",
    "a NOT ENDSWITH 'x'", "a CONTAINS ''", "a NOT CONTAINS ''", "a STARTSWITH ''",
    "a ENDSWITH ''", "5 CONTAINS '5'", "'xyz' CONTAINS 'y'", "'xyz' NOT STARTSWITH 'y'",
    "(a > 5) CONTAINS 'x'", "(a > 5) CONTAINS ''", "a CONTAINS 5", "a CONTAINS b", "a CONTAINS",
    "a CONTAINS 'x' CONTAINS 'y'", "a CONTAINS 'x' = TRUE", "a CONTAINS 'x' > 5",
    "NULL CONTAINS 'x'", "a NOT CONTAINS 'z'", "a STARTSWITH '5' AND a ENDSWITH '5'",
    "c > 3 OR b = 5", "b = 5 OR c > 3", "c > 3 AND b = 5", "b = 5 AND c > 3",
    "a = 1 OR b = 2 AND c = 3", "(a = 1 OR b = 2) AND c = 3", "a IS NULL OR a <> 'x'", "A = 'x'",
    "a LIKE 'x'", "a + 1 > 2", "a = 1 anything", "a > 1)", "a != 1", "a.b = 1", "a = 1; b",
    "a == 1", "(a > 1", "a = 1 and", "", " ", "a = 1 @", "a = 1 b @", "a = 1 (", "()", "(a)",
    "((a)) = 'x'", "a = 1, b", "a - 5 = 3", "a > 5 > 3", "a = b = c", "a = 'x' = TRUE",
    "a <> b <> c", "a > 5 = b > 5", "a < b < c", "now > 5", "$a = 'x'", "_a = '5'", "1a = 5",
    "a-b = 5", 'a = "x"', "a = 'x", "a = 'x''", "a = ''''", "a = ''", "'' = a",
    "a = 'x' -- comment\n AND b = 'x'", "a = 'x' -- comment", "a = 'x' /* AND b */ AND c = 'x'",
    "a = 'x' /* AND b", "/*/ a */ b = 'x'", "/***/ a = 'x'", "/* a ** / b */ a = 'x'", "a /x = 5",
    "--\na = 'x'", "a\t=\t'x'", "a\n=\n'x' @", "a\r\n=\r\n@", "\t\t@", "a = 1\t@", "a = 'x' \v",
    "a = '\u00e9'", "\u00e9 = 1", "a = '\U0001f680'", "a CONTAINS '\U0001f680' @", "TAGS = 'x'",
    "KEYS = '5'", "UNIQ_KEY IS NOT NULL", "aNd = 5", "nOt a", "a BeTwEeN 1 aNd 7", "null_ = 'x'",
    "a = tRuE", "a = 1 OR", "OR a", "AND", "NOT", "-", "+", "= 5", "a =", "> 5", "a > (5)",
    "a > (b)", "a > (b > 5)", "(5) = a", "('x') = a", "a = (NULL)", "a IN ((  'x'))", "+(NOT 5)",
    "+(a @)", "+ a @", "a > +5", "a > + + -5", "((((((((((a = 5))))))))))",
    "NOT (NOT (NOT (a > 5)))",
]  # fmt: skip

VALUES = [
    "5", "05", "+5", "-5", "5.5", "5.0", "5f", "5d", "5L", "6", "0", "-0", "-0.0", "0.0", " 5",
    "5 ", "3000000000", "-3000000000", "2147483647", "2147483648", "-2147483648", "-2147483649",
    "9223372036854775807", "9223372036854775808", "1e3", "1E400", "-1e400", "1e-400", "NaN",
    "+NaN", "Infinity", "-Infinity", "inf", "nan", "0x1p3", "0x.8p1", "0xp1", "0x1p99999", "0x1",
    ".5", "5.", ".", "+", "-", "1_000", "\u0665", "\uff15", "\U0001d7d7",
    "00000000000000000000005", "true", "TRUE", "tRue", "false", "x", "y", "xy", "yx", "it's", "X",
    "z", "abc", "\u00e9", "\U0001f680", "null", "1", "2", "3", "4", "9007199254740993",
    "9007199254740992.0", "\x1f5", "5\x00", "\u00a05",
]  # fmt: skip

NAMES = ["a", "b", "c", "A", "$a", "_a", "TAGS", "KEYS"]


@dataclass(frozen=True, slots=True)
class Case:
    """One expression, and the messages it is tried on, as property sets."""

    expression: str
    messages: tuple[dict[str, str], ...]

    def strings(self) -> list[bytes]:
        """The property strings of the messages."""
        return [format_properties(message) for message in self.messages]


def generate(seed: int, count: int) -> list[Case]:
    """All rules, then random expressions up to ``count`` in total."""
    chance = random.Random(seed)
    cases = [Case(rule, _messages(chance, 8)) for rule in RULES]
    writer = _Writer(chance)
    while len(cases) < count:
        text = writer.expression(chance.randrange(5))
        if chance.random() < 0.2:
            text = _damaged(chance, text)
        cases.append(Case(text, _messages(chance, 6)))
    return cases


def _messages(chance: random.Random, count: int) -> tuple[dict[str, str], ...]:
    def one() -> dict[str, str]:
        names = [name for name in NAMES if chance.random() < 0.7]
        return {name: chance.choice(VALUES) for name in names}

    return ({}, {"a": "5"}, {"a": "x", "b": "x", "c": "x"}, *(one() for _ in range(count - 3)))


def _damaged(chance: random.Random, text: str) -> str:
    """The text with a piece taken out, doubled, or something put in."""
    start = chance.randrange(len(text) + 1)
    end = min(len(text), start + chance.randrange(4))
    inserts = ["(", ")", "'", "-", "/*", "--", "\n", " NOT ", " IS ", "@", ".", "5", " a ", ","]
    middle = chance.choice(["", text[start:end] * 2, *inserts])
    return text[:start] + middle + text[end:]


class _Writer:
    """Writes expressions that mostly make sense."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._forms: list[Callable[[int], str]] = [
            lambda depth: f"{self.expression(depth)} AND {self.expression(depth)}",
            lambda depth: f"{self.expression(depth)} OR {self.expression(depth)}",
            lambda depth: f"({self.expression(depth)})",
            lambda depth: f"NOT ({self.expression(depth)})",
            lambda depth: f"({self.expression(depth)}) {self._equal()} {self._any(depth)}",
            lambda depth: f"{self._any(depth)} {self._equal()} ({self.expression(depth)})",
            lambda depth: f"({self.expression(depth)}) IS {self._not()}NULL",
            lambda depth: f"{self._any(depth)} IS {self._not()}NULL",
            lambda depth: f"-({self.expression(depth)}) {self._equal()} {self._any(depth)}",
        ]

    def expression(self, depth: int) -> str:
        if depth <= 0 or self._chance.random() < 0.3:
            return self._simple()
        return self._chance.choice(self._forms)(depth - 1)

    def _simple(self) -> str:
        kind = self._chance.randrange(8)
        if kind < 3:
            return f"{self._operand()} {self._pick('> >= < <=')} {self._operand()}"
        if kind < 5:
            return f"{self._any(0)} {self._equal()} {self._any(0)}"
        name = self._pick("a b c")
        if kind == 5:
            bounds = f"{self._operand()} AND {self._operand()}"
            return f"{self._operand()} {self._not()}BETWEEN {bounds}"
        if kind == 6:
            texts = ", ".join(self._text() for _ in range(self._chance.randrange(1, 8)))
            return f"{name} {self._not()}IN ({texts})"
        how = self._pick("CONTAINS STARTSWITH ENDSWITH")
        return f"{name} {self._not()}{how} {self._text()}"

    def _pick(self, words: str) -> str:
        return self._chance.choice(words.split())

    def _not(self) -> str:
        return self._chance.choice(["", "NOT "])

    def _equal(self) -> str:
        return self._chance.choice(["=", "<>"])

    def _text(self) -> str:
        value = self._chance.choice(VALUES).replace("'", "''")
        return f"'{value}'"

    def _operand(self) -> str:
        numbers = (
            "5 0 1 -5 2147483647 2147483648 3000000000 -3000000000 5.0 "
            "5.5 -5.5 .5 1e3 9e18 7L 9007199254740993"
        )
        return self._pick("a b c") if self._chance.random() < 0.6 else self._pick(numbers)

    def _any(self, depth: int) -> str:
        kind = self._chance.randrange(6)
        if kind == 0:
            return self._text()
        if kind == 1:
            return self._pick("TRUE FALSE true NULL -a -TRUE")
        if kind == 2 and depth:
            return f"({self.expression(depth - 1)})"
        return self._operand()
