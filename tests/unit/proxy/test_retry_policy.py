"""The retry policy of a group (``GroupRetryPolicy``), as RocketMQ 5 clients are told of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.support.grpc import Client, GrpcWorld

from firearrow.model import codes
from firearrow.model.group import Group
from firearrow.protocol.grpc.pb import definition_pb2 as v2


@pytest.fixture
def client(grpc: GrpcWorld) -> Client:
    return grpc.connect()


def make_group(grpc: GrpcWorld, policy: Any, **more: Any) -> int:
    group = {"groupName": "g", "groupRetryPolicy": policy, **more}
    return grpc.world.connect().call(200, body=json.dumps(group).encode()).code


def told(client: Client) -> v2.RetryPolicy:
    """What a push consumer of the group is answered."""
    settings = v2.Settings(client_type=v2.PUSH_CONSUMER)
    settings.subscription.group.name = "g"
    settings.subscription.subscriptions.add().topic.name = "orders"
    _, answer = client.settings(settings)
    assert answer.status.code == v2.OK
    policy: v2.RetryPolicy = answer.settings.backoff_policy
    return policy


def milliseconds(policy: v2.RetryPolicy) -> list[int]:
    return [time.ToMilliseconds() for time in policy.customized_backoff.next]


EXPONENTIAL = {"type": "EXPONENTIAL"}
QUICK = {"initial": 1500, "max": 60_000, "multiplier": 3}


@pytest.mark.parametrize(
    ("more", "initial", "most", "multiplier"),
    [
        ({}, 5000, 7_200_000, 2),
        ({"exponentialRetryPolicy": QUICK}, 1500, 60_000, 3),
    ],
)
def test_a_group_whose_tries_grow_apart(
    grpc: GrpcWorld, client: Client, more: Any, initial: int, most: int, multiplier: int
) -> None:
    assert make_group(grpc, EXPONENTIAL | more, retryMaxTimes=3) == 0
    policy = told(client)
    backoff = policy.exponential_backoff
    assert (policy.max_attempts, policy.WhichOneof("strategy")) == (4, "exponential_backoff")
    times = backoff.initial.ToMilliseconds(), backoff.max.ToMilliseconds(), backoff.multiplier
    assert times == (initial, most, multiplier)


def test_a_group_with_times_of_its_own_between_tries(grpc: GrpcWorld, client: Client) -> None:
    policy = {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [1500, 60_000]}}
    assert make_group(grpc, policy) == 0
    assert milliseconds(told(client)) == [1500, 60_000]


def test_a_group_without_a_policy_has_the_delay_levels(grpc: GrpcWorld, client: Client) -> None:
    assert make_group(grpc, {"type": "CUSTOMIZED"}) == 0
    times = milliseconds(told(client))
    assert (times[:4], times[-1], len(times)) == ([1000, 5000, 10_000, 30_000], 7_200_000, 18)


def test_a_changed_policy_is_told_to_whoever_asks_next(grpc: GrpcWorld, client: Client) -> None:
    assert make_group(grpc, EXPONENTIAL) == 0
    assert told(client).WhichOneof("strategy") == "exponential_backoff"
    policy = {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [700]}}
    assert make_group(grpc, policy) == 0
    assert milliseconds(told(grpc.connect("client-2"))) == [700]


@pytest.mark.parametrize(
    "policy",
    [
        {"type": "EXPONENTIAL", "exponentialRetryPolicy": {"initial": "x"}},
        {"type": "EXPONENTIAL", "exponentialRetryPolicy": 5},
        {"type": "EXPONENTIAL", "exponentialRetryPolicy": {"multiplier": None, "max": 10**40}},
        {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": ["x"]}},
        {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": 5}},
        {"type": "CUSTOMIZED", "customizedRetryPolicy": {"next": [10**40, -1, None]}},
        {"type": 7},
    ],
)
def test_a_policy_that_makes_no_sense_does_not_keep_consumers_out(
    grpc: GrpcWorld, client: Client, policy: Any
) -> None:
    """A Java broker behind the proxy, or one that wrote the store, may have it."""
    group = Group(name="g", retry_policy=policy)
    grpc.world.core.groups.update(group)
    assert milliseconds(told(client))[:2] == [1000, 5000]
    # Here it cannot be set; a type that is none is the default, as in RocketMQ.
    assert make_group(grpc, policy) == (0 if policy == {"type": 7} else codes.INVALID_PARAMETER)
