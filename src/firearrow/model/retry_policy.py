"""How long RocketMQ 5 clients wait between the tries of a message (``GroupRetryPolicy``).

A group's configuration holds it as JSON; the broker itself does not follow it.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec

DEFAULT_NEXT_MS: Final = tuple(
    seconds * 1000 for seconds in (1, 5, 10, 30, *range(60, 601, 60), 1200, 1800, 3600, 7200)
)
TIME_MS_MAX: Final = 365 * 86_400_000
TIMES_MAX: Final = 1000

Time = Annotated[int, msgspec.Meta(ge=0, le=TIME_MS_MAX)]


class Exponential(msgspec.Struct, frozen=True):
    """``initial``, then ``multiplier`` times as much each time, at most ``max`` (milliseconds)."""

    initial: Time = 5000
    max: Time = 7_200_000
    multiplier: Annotated[float, msgspec.Meta(ge=0, le=1e6)] = 2


class Customized(msgspec.Struct, frozen=True):
    """One time after the other, in milliseconds; the last one goes on."""

    next: Annotated[tuple[Time, ...], msgspec.Meta(max_length=TIMES_MAX)] = DEFAULT_NEXT_MS


RetryPolicy = Exponential | Customized


def read_retry_policy(policy: dict[str, Any]) -> RetryPolicy:
    """The policy of a group's configuration; what it leaves out is RocketMQ's default.

    Raises:
        ValueError: a part of it is of the wrong kind or out of range; the text says which.
    """
    if policy.get("type") == "EXPONENTIAL":
        given = policy.get("exponentialRetryPolicy")
        return msgspec.convert({} if given is None else given, Exponential)
    given = policy.get("customizedRetryPolicy")
    found = msgspec.convert({} if given is None else given, Customized)
    return found if found.next else Customized()
