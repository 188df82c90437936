"""Parts of a filter expression, each one a closure over a message's properties.

What a part can give is known when it is made: a property is a text or absent, a comparison is
true, false or unknown. So every comparison chooses its conversion once, and evaluating it is a
look-up, a conversion and a compare. The rules are those of RocketMQ's ``ComparisonExpression``,
``LogicExpression`` and ``UnaryExpression``, oddities included.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final

from firearrow.features.filter.numbers import double, double_key, int32, int64

# Looks a property up; ``None`` when the message has none of that name.
Get = Callable[[str], str | None]
Evaluate = Callable[[Get], Any]

PROPERTY, STRING, INT, LONG, DOUBLE, LOGICAL, NULL = range(7)
_TEXTS: Final = (PROPERTY, STRING)
_WHOLE: Final = (INT, LONG)
_NUMBERS: Final = (INT, LONG, DOUBLE)


class EvaluationError(ValueError):
    """The expression makes no sense for this message (``ClassCastException``)."""


class OperandError(ValueError):
    """An operator cannot take this operand; found when the expression is read."""


class Part:
    """One part: its ``kind`` says what it evaluates to when it is not null.

    ``literal`` is what was written as such, with its ``value``; ``-5`` is not. A part of kind
    ``NULL`` that is no literal is always null, but evaluating it may fail.
    """

    __slots__ = ("depth", "evaluate", "kind", "literal", "value")

    def __init__(
        self,
        kind: int,
        evaluate: Evaluate,
        depth: int = 1,
        value: Any = None,
        literal: bool = False,
    ) -> None:
        self.kind = kind
        self.evaluate = evaluate
        self.depth = depth
        self.value = value
        self.literal = literal

    @property
    def logical(self) -> bool:
        """Whether it may stand where a condition is expected."""
        return self.kind == LOGICAL or (self.kind == NULL and self.literal)


def _logical(evaluate: Evaluate, *parts: Part) -> Part:
    return Part(LOGICAL, evaluate, 1 + max(part.depth for part in parts))


# -- leaves


def literal(kind: int, value: Any) -> Part:
    return Part(kind, lambda get: value, value=value, literal=True)


def property_(name: str) -> Part:
    return Part(PROPERTY, lambda get: get(name), value=name)


# -- unary


def negate(part: Part) -> Part:
    if part.kind in _NUMBERS:
        value = -part.value
        return Part(part.kind, lambda get: value, value=value)
    inner = part.evaluate

    def evaluate(get: Get) -> None:
        inner(get)

    return Part(NULL, evaluate, part.depth + 1)


def condition(part: Part) -> Part:
    """The part as a condition; a property is one, which is never true.

    Raises:
        OperandError: it is a number or a text.
    """
    if part.logical:
        return part
    if part.kind != PROPERTY:
        raise OperandError("a condition is needed, not a value")
    name = part.value
    return _logical(lambda get: None if get(name) is None else False, part)


def not_(part: Part) -> Part:
    inner = condition(part).evaluate

    def evaluate(get: Get) -> bool | None:
        value = inner(get)
        return None if value is None else not value

    return _logical(evaluate, part)


# -- logic: unknown is contagious, unless the other side decides alone


def all_of(parts: Sequence[Part]) -> Part:
    evaluates = [part.evaluate for part in parts]

    def evaluate(get: Get) -> bool | None:
        result: bool | None = True
        for inner in evaluates:
            value = inner(get)
            if value is False:
                return False
            if value is None:
                result = None
        return result

    return _logical(evaluate, *parts)


def any_of(parts: Sequence[Part]) -> Part:
    evaluates = [part.evaluate for part in parts]

    def evaluate(get: Get) -> bool | None:
        result: bool | None = False
        for inner in evaluates:
            value = inner(get)
            if value is True:
                return True
            if value is None:
                result = None
        return result

    return _logical(evaluate, *parts)


# -- comparisons
# A side that is always null is never evaluated twice: within each other that would take for ever.


def _double_key(text: str) -> Any:
    return double_key(double(text))


def _number_key(number: float) -> Any:
    return double_key(float(number))


def _same(value: Any) -> Any:
    return value


def _conversions(left: Part, right: Part) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """How to bring two sides to comparable values: a text becomes what the other side is, and two
    texts, which only ``<`` and its family convert, become doubles."""
    kinds = (left.kind, right.kind)
    if kinds[0] in _TEXTS and kinds[1] in _TEXTS:
        return _double_key, _double_key
    if kinds[0] in _TEXTS or kinds[1] in _TEXTS:
        number = kinds[1] if kinds[0] in _TEXTS else kinds[0]
        from_text = {INT: int32, LONG: int64}.get(number, _double_key)
        from_number = _same if number in _WHOLE else _number_key
        return (from_text, from_number) if kinds[0] in _TEXTS else (from_number, from_text)
    if DOUBLE in kinds:
        return _number_key, _number_key
    return _same, _same


_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def ordered(sign: str, left: Part, right: Part) -> Part:
    """``<`` and its family: null with a null operand, an error with a text that is no number.

    Raises:
        OperandError: an operand is a text or truth literal, or a condition.
    """
    for part in (left, right):
        if part.logical or (part.literal and part.kind == STRING):
            raise OperandError(f"only numbers and properties can be compared with {sign}")
    holds = _ORDERS[sign]
    to_left, to_right = _conversions(left, right)
    first, second = left.evaluate, right.evaluate
    if left.kind == PROPERTY and right.kind in _NUMBERS:
        name, bound = left.value, to_right(right.value)

        def with_number(get: Get) -> bool | None:
            text = get(name)
            return None if text is None else holds(to_left(text), bound)

        return _logical(with_number, left)

    def evaluate(get: Get) -> bool | None:
        a = first(get)
        if a is None:
            return None
        b = second(get)
        return None if b is None else holds(to_left(a), to_right(b))

    return _logical(evaluate, left, right)


def between(value: Part, low: Part, high: Part) -> Part:
    """``low <= value AND value <= high``.

    Raises:
        OperandError: literal bounds the wrong way round, or as ``ordered``.
    """
    parts = [ordered(">=", value, low), ordered("<=", value, high)]
    if low.literal and high.literal:
        to_low, to_high = _conversions(low, high)
        if to_low(low.value) > to_high(high.value):
            raise OperandError(f"the lower bound {low.value} is above the upper one {high.value}")
    return parts[0] if value.kind == NULL else all_of(parts)


def not_between(value: Part, low: Part, high: Part) -> Part:
    parts = [ordered("<", value, low), ordered(">", value, high)]
    return parts[0] if value.kind == NULL else any_of(parts)


def equal(left: Part, right: Part) -> Part:
    """Null when only the left side is null, false when only the right one is, true when both are.

    Raises:
        OperandError: an operand is the literal NULL, or TRUE or FALSE meets another literal.
    """
    for part in (left, right):
        if part.literal and part.kind == NULL:
            raise OperandError("NULL cannot be compared: write IS NULL or IS NOT NULL")
    if left.literal and left.kind == LOGICAL and right.literal and right.kind != LOGICAL:
        raise OperandError("TRUE and FALSE cannot be compared with a literal of another kind")
    if left.kind == PROPERTY and right.kind == STRING:
        name, wanted = left.value, right.value

        def with_text(get: Get) -> bool | None:
            text = get(name)
            return None if text is None else text == wanted

        return _logical(with_text, left)
    return _equal(left, right, _equality(left, right))


def is_null(part: Part) -> Part:
    inner = part.evaluate
    return _logical(lambda get: inner(get) is None, part)


def _equal(left: Part, right: Part, same: Callable[[Any, Any], bool]) -> Part:
    first, second = left.evaluate, right.evaluate

    def evaluate(get: Get) -> bool | None:
        a, b = first(get), second(get)
        if a is None:
            return True if b is None else None
        return False if b is None else same(a, b)

    return _logical(evaluate, left, right)


def _equality(left: Part, right: Part) -> Callable[[Any, Any], bool]:
    """Equality of two values that are not null, by what the sides can be."""
    kinds = (left.kind, right.kind)
    if NULL in kinds or (kinds[0] in _TEXTS and kinds[1] in _TEXTS) or kinds == (LOGICAL, LOGICAL):
        return operator.eq
    if kinds[0] == LOGICAL:
        return _truth_and_text if kinds[1] in _TEXTS else _never
    if kinds[1] == LOGICAL:
        return _text_and_truth if kinds[0] in _TEXTS else _never
    to_left, to_right = _conversions(left, right)
    return lambda a, b: bool(to_left(a) == to_right(b))


def _never(a: Any, b: Any) -> bool:
    return False


def _text_and_truth(text: str, truth: bool) -> bool:
    return (text.lower() == "true") is truth


def _truth_and_text(truth: bool, text: str) -> bool:
    raise EvaluationError("a truth value cannot be compared with a text")


# -- texts


def in_(part: Part, texts: Collection[str], wanted: bool) -> Part:
    """``IN`` and, with ``wanted`` false, ``NOT IN``.

    Raises:
        OperandError: the left side is no property.
    """
    if part.kind != PROPERTY:
        raise OperandError("IN needs a property on its left")
    name, texts = part.value, frozenset(texts)

    def evaluate(get: Get) -> bool | None:
        text = get(name)
        return None if text is None else (text in texts) is wanted

    return _logical(evaluate, part)


SEARCHES: Final[dict[str, Callable[[str, str], bool]]] = {
    "CONTAINS": str.__contains__,
    "STARTSWITH": str.startswith,
    "ENDSWITH": str.endswith,
}


def search(how: str, part: Part, text: str, wanted: bool) -> Part:
    """``CONTAINS`` and its family: false for what is no text, negated or not."""
    inner, holds = part.evaluate, SEARCHES[how]
    if not text:
        return _logical(lambda get: False, part)

    def evaluate(get: Get) -> bool:
        value = inner(get)
        return isinstance(value, str) and holds(value, text) is wanted

    return _logical(evaluate, part)
