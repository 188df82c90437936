"""SQL92 expressions of RocketMQ's filters: text in, a function of a message's properties out.

    expression = conjunction (OR conjunction)*
    conjunction = equality (AND equality)*
    equality   = comparison (('=' | '<>') comparison | IS [NOT] NULL)*
    comparison = unary (('>' | '>=' | '<' | '<=') unary
                       | [NOT] (CONTAINS | STARTSWITH | ENDSWITH) string
                       | [NOT] BETWEEN unary AND unary
                       | [NOT] IN '(' string (',' string)* ')')*
    unary      = ('+' | '-' | NOT)* (literal | name | '(' expression ')')

What follows a whole expression is ignored but for one token, as ``SelectorParser`` does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from firearrow.features.filter import expression
from firearrow.features.filter.expression import EvaluationError, Get, OperandError, Part
from firearrow.features.filter.lexer import (
    DECIMAL,
    END,
    FLOAT,
    NAME,
    STRING,
    ExpressionSyntaxError,
    Lexer,
    Token,
    string_value,
    where,
)
from firearrow.features.filter.numbers import INT32_MAX, INT64_MAX, NotANumberError

EXPRESSION_CHARS_MAX: Final = 32 * 1024
DEPTH_MAX: Final = 128  # brackets, negations and chains within each other
OPERATORS_MAX: Final = 1024  # bounds what one message costs
IMAGE_CHARS_MAX: Final = 64  # of a wrong token in a message

_TRUTHS: Final = {"TRUE": True, "FALSE": False}
_INT64_DIGITS_MAX: Final = 19

# (property look-up) -> true, false, or None for unknown; raises EvaluationError or NotANumberError.
Condition = Callable[[Get], bool | None]


def compile_sql92(text: str) -> Condition:
    """Read an expression.

    Raises:
        ExpressionSyntaxError: it is none, or over a limit; the message tells the place.
    """
    if len(text) > EXPRESSION_CHARS_MAX:
        raise ExpressionSyntaxError(
            f"an expression of {len(text)} characters; the limit is {EXPRESSION_CHARS_MAX}"
        )
    return _Parser(text).parse().evaluate


def holds(condition: Condition, get: Get) -> bool:
    """Whether a message matches; one that the expression makes no sense for does not."""
    try:
        return condition(get) is True
    except (EvaluationError, NotANumberError):
        return False


class _Parser:
    """Recursive descent with one token of look-ahead, two behind NOT."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._lexer = Lexer(text)
        self._ahead: list[Token] = []
        self._open = 0
        self._operators = 0

    def parse(self) -> Part:
        start = self._peek()
        return self._checked(start, expression.condition, self._expression())

    # -- tokens

    def _peek(self, distance: int = 0) -> Token:
        while len(self._ahead) <= distance:
            self._ahead.append(self._lexer.next())
        return self._ahead[distance]

    def _take(self) -> Token:
        self._peek()
        return self._ahead.pop(0)

    def _accept(self, kind: str) -> bool:
        if self._peek().kind != kind:
            return False
        self._take()
        return True

    def _expect(self, kind: str) -> Token:
        token = self._peek()
        if token.kind != kind:
            raise self._unexpected(token, kind)
        return self._take()

    def _unexpected(self, token: Token, wanted: str) -> ExpressionSyntaxError:
        return ExpressionSyntaxError(
            f'Encountered "{token.image[:IMAGE_CHARS_MAX]}" at {where(self._text, token.at)}. '
            f"Was expecting: {wanted}"
        )

    def _checked(self, token: Token, make: Callable[..., Part], *operands: object) -> Part:
        """One part more, or why it cannot be."""
        self._operators += 1
        try:
            part = make(*operands)
        except (OperandError, NotANumberError) as error:
            raise ExpressionSyntaxError(f"{error} (at {where(self._text, token.at)})") from None
        if part.depth > DEPTH_MAX or self._operators > OPERATORS_MAX:
            raise self._too_large(token)
        return part

    def _too_large(self, token: Token) -> ExpressionSyntaxError:
        return ExpressionSyntaxError(
            f"the expression is too large at {where(self._text, token.at)}: "
            f"at most {OPERATORS_MAX} operators, {DEPTH_MAX} of them within each other"
        )

    # -- grammar, lowest precedence first

    # Few calls a bracket: DEPTH_MAX of them must fit on the stack.

    def _expression(self) -> Part:
        start = self._peek()
        alternatives: list[Part] = []
        parts: list[Part] = []
        while True:
            parts.append(self._equality())
            if self._accept("AND"):
                continue
            alternatives.append(self._joined(start, expression.all_of, parts))
            if not self._accept("OR"):
                return self._joined(start, expression.any_of, alternatives)
            parts = []

    def _joined(self, start: Token, make: Callable[[list[Part]], Part], parts: list[Part]) -> Part:
        if len(parts) == 1:
            return parts[0]
        conditions = [self._checked(start, expression.condition, part) for part in parts]
        return self._checked(start, make, conditions)

    def _equality(self) -> Part:
        left = self._comparison()
        while True:
            token = self._peek()
            if token.kind in ("=", "<>"):
                self._take()
                left = self._checked(token, expression.equal, left, self._comparison())
                if token.kind == "<>":
                    left = self._checked(token, expression.not_, left)
            elif token.kind == "IS":
                self._take()
                negated = self._accept("NOT")
                self._expect("NULL")
                left = self._checked(token, expression.is_null, left)
                if negated:
                    left = self._checked(token, expression.not_, left)
            else:
                return left

    def _comparison(self) -> Part:
        left = self._unary()
        while True:
            token = self._peek()
            wanted = token.kind != "NOT"
            kind = token.kind if wanted else self._peek(1).kind
            if kind in (">", ">=", "<", "<=") and wanted:
                self._take()
                left = self._checked(token, expression.ordered, kind, left, self._unary())
                continue
            if kind not in expression.SEARCHES and kind not in ("BETWEEN", "IN"):
                if wanted:
                    return left
                raise self._unexpected(token, "an operator")
            self._take()
            if not wanted:
                self._take()
            left = self._text_comparison(token, kind, left, wanted)

    def _text_comparison(self, token: Token, kind: str, left: Part, wanted: bool) -> Part:
        if kind == "BETWEEN":
            low = self._unary()
            self._expect("AND")
            make = expression.between if wanted else expression.not_between
            return self._checked(token, make, left, low, self._unary())
        if kind == "IN":
            return self._checked(token, expression.in_, left, self._strings(), wanted)
        text = string_value(self._expect(STRING).image)
        return self._checked(token, expression.search, kind, left, text, wanted)

    def _strings(self) -> list[str]:
        self._expect("(")
        texts = [string_value(self._expect(STRING).image)]
        while self._accept(","):
            texts.append(string_value(self._expect(STRING).image))
        self._expect(")")
        return texts

    def _unary(self) -> Part:
        signs = []
        while self._peek().kind in ("+", "-", "NOT"):
            signs.append(self._take())
        if self._accept("("):
            self._open += 1
            if self._open > DEPTH_MAX:
                raise self._too_large(self._peek())
            part = self._expression()
            self._expect(")")
            self._open -= 1
        else:
            part = self._value()
        for sign in reversed(signs):
            if sign.kind != "+":
                make = expression.negate if sign.kind == "-" else expression.not_
                part = self._checked(sign, make, part)
        return part

    def _value(self) -> Part:
        token = self._take()
        kind = token.kind
        if kind == NAME:
            return expression.property_(token.image)
        if kind == STRING:
            return expression.literal(expression.STRING, string_value(token.image))
        if kind == DECIMAL:
            return self._decimal(token)
        if kind == FLOAT:
            return self._float(token)
        if kind in _TRUTHS:
            return expression.literal(expression.LOGICAL, _TRUTHS[kind])
        if kind == "NULL":
            return expression.literal(expression.NULL, None)
        raise self._unexpected(token, "a value" if kind != END else "more")

    def _decimal(self, token: Token) -> Part:
        digits = token.image.rstrip("lL")
        value = int(digits) if len(digits) <= _INT64_DIGITS_MAX else INT64_MAX + 1
        if value > INT64_MAX:
            raise ExpressionSyntaxError(
                f"{digits[:IMAGE_CHARS_MAX]} at {where(self._text, token.at)} is above {INT64_MAX}"
            )
        kind = expression.INT if value <= INT32_MAX else expression.LONG
        return expression.literal(kind, value)

    def _float(self, token: Token) -> Part:
        value = float(token.image)
        if value == 0.0 or value == float("inf"):
            raise ExpressionSyntaxError(
                f"{token.image[:IMAGE_CHARS_MAX]} at {where(self._text, token.at)} is not between "
                "4.9E-324 and 1.7976931348623157E308"
            )
        return expression.literal(expression.DOUBLE, value)
