"""A table of ``config/`` with a member of the wrong kind: the operator hears which, and nothing of
it is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.brokers import World

from firearrow.config import BrokerSettings
from firearrow.store.configfiles import ConfigUnreadable

TOPIC = {"topicName": "orders", "perm": 6}
ITEM = {"bname": "broker-a", "gen": 0, "logicOffset": 0, "queueId": 0}
MAPPING = {"bname": "broker-a", "topic": "orders", "hostedQueues": {"0": [ITEM]}}
MODE = {"consumerGroup": "readers", "topic": "orders", "mode": "POP"}

# file, its content, where the wrong member is, and what is said of it
WRONG: list[tuple[str, Any, str]] = [
    ("topics.json", {"dataVersion": 5}, "dataVersion: Expected `object | null`, got `int`"),
    ("topics.json", {"topicConfigTable": []}, "topicConfigTable: Expected"),
    (
        "topics.json",
        {"topicConfigTable": {"good": TOPIC, "orders": {**TOPIC, "perm": "often"}}},
        'topicConfigTable["orders"].perm: Expected `int`, got `str`',
    ),
    (
        "topics.json",
        {"topicConfigTable": {"orders": {**TOPIC, "topicName": 7}}},
        'topicConfigTable["orders"].topicName: Expected `str`, got `int`',
    ),
    ("subscriptionGroup.json", {"dataVersion": "new"}, "dataVersion: Expected"),
    (
        "subscriptionGroup.json",
        {"subscriptionGroupTable": {"readers": {"retryMaxTimes": []}}},
        'subscriptionGroupTable["readers"].retryMaxTimes: Expected `int`, got `array`',
    ),
    (
        "subscriptionGroup.json",
        {"forbiddenTable": {"readers": {"orders": "all"}}},
        'forbiddenTable["readers"]["orders"]: Expected `int`, got `str`',
    ),
    ("consumerOffset.json", {"dataVersion": [1]}, "dataVersion: Expected"),
    (
        "consumerOffset.json",
        {"offsetTable": {"orders@readers": {"0": 7, "1": "seven"}}},
        'offsetTable["orders@readers"]["1"]: Expected `int`, got `str`',
    ),
    (
        "consumerOffset.json",
        {"offsetTable": {"orders@readers": {"first": 7}}},
        'offsetTable["orders@readers"]["first"]: Expected `int`, got `str`',
    ),
    ("lmqConsumerOffset.json", {"lmqOffsetTable": {"%LMQ%a@r": {}}}, 'lmqOffsetTable["%LMQ%a@r"]'),
    ("delayOffset.json", {"dataVersion": 5}, "dataVersion: Expected"),
    ("delayOffset.json", {"offsetTable": {"3": "x"}}, 'offsetTable["3"]: Expected `int`'),
    ("topicQueueMapping.json", {"dataVersion": 5}, "dataVersion: Expected"),
    (
        "topicQueueMapping.json",
        {
            "topicQueueMappingInfoMap": {
                "orders": {**MAPPING, "hostedQueues": {"0": [ITEM, {**ITEM, "gen": "x"}]}}
            }
        },
        'topicQueueMappingInfoMap["orders"].hostedQueues["0"][1].gen: Expected `int`, got `str`',
    ),
    (
        "consumerFilter.json",
        {"filterDataByTopic": {"orders": {"groupFilterData": 5}}},
        'filterDataByTopic["orders"].groupFilterData: Expected `object | null`, got `int`',
    ),
    (
        "consumerOrderInfo.json",
        {"table": {"orders@readers": {"0": {"o": [1], "popTime": "x"}}}},
        'table["orders@readers"]["0"].popTime: Expected `int`, got `str`',
    ),
    (
        "messageRequestMode.json",
        {"messageRequestModeMap": {"orders": {"readers": {**MODE, "topic": 1}}}},
        'messageRequestModeMap["orders"]["readers"].topic: Expected `str`, got `int`',
    ),
    ("ttlTopics.json", {"topics": ["orders", 5]}, "topics[1]: Expected `str`, got `int`"),
]
COUNTS: list[tuple[str, Any, str]] = [
    ("timermetrics", {"timingCount": {"orders": {"count": "x"}}}, 'timingCount["orders"].count'),
    ("timermetrics", {"dataVersion": 5}, "dataVersion: Expected"),
    ("transactionMetrics", {"transactionCount": {"orders": []}}, 'transactionCount["orders"]'),
    ("transactionMetrics", {"dataVersion": 5}, "dataVersion: Expected"),
]


def begin(root: Path) -> World:
    return World(root, BrokerSettings(enable_lmq=True, enable_multi_dispatch=True))


@pytest.mark.parametrize(("name", "content", "said"), WRONG)
def test_the_start_stops_and_names_file_and_member(
    tmp_path: Path, name: str, content: Any, said: str
) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(ConfigUnreadable) as stopped:
        begin(tmp_path)
    text = str(stopped.value)
    assert text.startswith(f"{path} is unreadable")
    assert said in text
    assert "repair it, or remove it" in text
    assert json.loads(path.read_bytes()) == content


@pytest.mark.parametrize(("name", "content", "said"), WRONG + COUNTS)
def test_the_copy_takes_its_place_and_both_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: Any, said: str
) -> None:
    path = put(tmp_path, name, content)
    put(tmp_path, f"{name}.bak", {})
    world = begin(tmp_path)
    for _ in range(2):  # each save makes a copy of the file before it
        world.store.save_config(name, [b"{}"])
        world.clock.advance(60)
    world.stop()
    (line,) = [record for record in caplog.records if str(path) in record.getMessage()]
    assert said in line.getMessage()
    assert f"{name}.bak, which is older, takes its place" in line.getMessage()
    assert json.loads(path.with_name(f"{name}.unreadable").read_bytes()) == content


@pytest.mark.parametrize(("name", "content", "said"), COUNTS)
def test_what_is_only_counted_is_counted_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, content: Any, said: str
) -> None:
    path = put(tmp_path, name, content)
    begin(tmp_path).stop()
    assert json.loads(path.read_bytes()) == content, "nothing was counted, so nothing saved"
    world = begin(tmp_path)
    world.store.save_config(name, [b"{}"])
    world.stop()
    assert said in caplog.text
    assert json.loads(path.with_name(f"{name}.unreadable").read_bytes()) == content


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("topics.json", {"topicName": "orders", "perm": "x"}),
        ("topics.json", {"deleted": 5}),
        ("topics.json", 7),
        ("subscriptionGroup.json", {"groupName": 5}),
        ("lmqConsumerOffset.json", ["orders", "readers", 0, "x"]),
        ("lmqConsumerOffset.json", {"orders": 5}),
        ("topicQueueMapping.json", {"topic": "orders"}),
        ("consumerOrderInfo.json", ["orders", "readers"]),
        ("messageRequestMode.json", {"topic": "orders"}),
        ("ttlTopics.json", {"topics": 5}),
    ],
)
def test_a_wrong_note_stops_the_start_and_is_named(tmp_path: Path, name: str, note: Any) -> None:
    path = put(tmp_path, f"{name}.journal", note)
    with pytest.raises(ConfigUnreadable, match=r"line 1, is unreadable .*repair it, or remove it"):
        begin(tmp_path)
    assert json.loads(path.read_bytes()) == note


def test_a_stopped_start_keeps_what_others_had_noted(tmp_path: Path) -> None:
    wrong = put(tmp_path, "subscriptionGroup.json", {"dataVersion": 5})
    put(tmp_path, "subscriptionGroup.json.journal", {"groupName": "readers"})
    put(tmp_path, "lmqConsumerOffset.json.journal", ["orders", "readers", 0, 7])
    with pytest.raises(ConfigUnreadable):
        begin(tmp_path)
    wrong.unlink()
    world = begin(tmp_path)
    assert world.core.offsets.find("orders", "readers", 0) == 7
    assert "readers" in world.core.groups.table
    world.stop()


def put(root: Path, name: str, content: Any) -> Path:
    path = root / "config" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path
