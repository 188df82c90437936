"""Everything that reads bytes from outside: how it is fed, its valid inputs, its own errors.

Shared by the property tests, which look at a few hundred inputs in every run, and by
``tests/fuzz.py``, which runs as long as one likes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import NamedTuple

from firearrow import config_file
from firearrow.broker import heartbeat
from firearrow.broker.admin import attributes
from firearrow.broker.subscription import ExpressionError
from firearrow.broker.subscription import parse as parse_subscription
from firearrow.codec import java_properties, lenient_json
from firearrow.codec.batch import BatchError, decode_batch
from firearrow.codec.message_id import parse_offset_message_id
from firearrow.codec.properties import find_property, parse_properties
from firearrow.codec.record import RecordError, decode_record, split_records
from firearrow.config_values import ConfigError, parse_addresses
from firearrow.features.delay import LevelError, parse_levels
from firearrow.features.filter.lexer import ExpressionSyntaxError
from firearrow.features.filter.sql92 import compile_sql92
from firearrow.features.pop.handles import HandleError, parse_handle
from firearrow.model import names
from firearrow.model.network import SessionError
from firearrow.namesrv import registration_body
from firearrow.namesrv import settings as namesrv_config
from firearrow.protocol.remoting.bodies import parse_properties_text
from firearrow.protocol.remoting.headers import decode_header
from firearrow.transport.detect import V2_SIGNATURE, PreambleError, detect
from tests.unit.protocol.test_session import BINARY_105, Server, json_frame


class Target(NamedTuple):
    """A reader, inputs it accepts, and what it may raise."""

    feed: Callable[[bytes], object]
    inputs: list[bytes]
    errors: tuple[type[Exception], ...] = ()


def text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


RECORD = bytes.fromhex(
    "0000007cdaa320a769c865ed00000003000000000000000000000007000000000000400000000000"
    "0000018bcfe56800c0a8010a0000c3500000018bcfe5687bc0a8011400002a9f"
    "0000000000000000000000000000000e48656c6c6f20526f636b65744d51"
    "09546f70696354657374000a54414753015461674102"
)
FRAMES = BINARY_105 + json_frame(
    {"code": 30, "extFields": {"topic": "T", "queueId": "1"}, "opaque": 8, "version": 479}, b"body"
)
JSON_HEADER = (
    b'{"code":310,"extFields":{"a":"p","b":"T","e":"0","g":"1700000000000","i":"KEYS\\u0001k"},'
    b'"flag":0,"language":"JAVA","opaque":7,"serializeTypeCurrentRPC":"JSON","version":479}'
)
HEARTBEAT = (
    b'{"clientID":"c","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_LAST_OFFSET",'
    b'"consumeType":"CONSUME_PASSIVELY","groupName":"g","messageModel":"CLUSTERING",'
    b'"subscriptionDataSet":[{"classFilterMode":false,"codeSet":[1],"expressionType":"TAG",'
    b'"subString":"a || b","subVersion":1,"tagsSet":["a"],"topic":"T"}],"unitMode":false}],'
    b'"producerDataSet":[{"groupName":"p"}]}'
)
REGISTRATION = (
    b'{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":3,'
    b'"stateVersion":0,"timestamp":1700000000000},"topicConfigTable":{"T":{"attributes":{},'
    b'"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T",'
    b'"topicSysFlag":0,"writeQueueNums":8}},"topicQueueMappingInfoMap":{"S":{"currIdMap":{0:1}}}}}'
)
_LINE = b"T 8 8 6 SINGLE_TAG {}"
UNPACKED = b"".join(
    [
        struct.pack(">i", 2) + b"{}" + struct.pack(">ii", 1, len(_LINE)) + _LINE,
        struct.pack(">i", 2) + b"[]" + struct.pack(">i", 0),
    ]
)
ITEM = struct.pack(">iiiii", 28, 0, 0, 7, 3) + b"abc" + struct.pack(">h", 3) + b"k\x01v"
PROPERTIES = b"TAGS\x01TagA\x02KEYS\x01k1 k2\x02"
FASTJSON = (
    b'{"a":{0:"x",-1:{"b":[2,{}]}},"t":{{"q":1,"t":"T"}:{"o":5.5}},"n":null,"s":"\\u0041:{1:"}'
)
PROXY_V1 = b"PROXY TCP4 10.1.2.3 10.9.8.7 5000 10911\r\n"
PROXY_V2 = V2_SIGNATURE + b"\x21\x11\x00\x0c" + bytes([10, 1, 2, 3, 10, 9, 8, 7]) + bytes(4)
CONF = (
    b"# broker\nbrokerName = a\\u0062\\\n  c\nlistenPort:10911\nnamesrvAddr=a:1;[::1]:2\n"
    b"deleteWhen=04;16\nflushDiskType=SYNC_FLUSH\n"
)


def session(data: bytes) -> None:
    """Whole, and one byte after the other: the same answers, or both break off."""
    outcomes = []
    for size in (max(len(data), 1), 1):
        server = Server()
        try:
            pieces = (data[i : i + size] for i in range(0, len(data), size))
            outcomes.append(b"".join(map(server.session.receive, pieces)))
        except SessionError:
            outcomes.append(b"(broken)")
    assert outcomes[0] == outcomes[1], outcomes


def preamble(data: bytes) -> None:
    """A longer look never takes back what a shorter one found."""
    for size in range(len(data) + 1):
        opening = detect(data[:size])
        assert opening.size <= max(len(data), size + 4200)


def properties(data: bytes) -> None:
    found = parse_properties(data)
    assert find_property(data, b"\x00no\x00such\x00") is None
    assert all(isinstance(value, str) for value in found.values())


def split(data: bytes) -> None:
    assert b"".join(split_records(data)) == data


def batch(data: bytes) -> None:
    assert sum(22 + len(i.body) + len(i.properties) for i in decode_batch(data)) == len(data)


def registration(data: bytes) -> None:
    for version in (0, 36, 399, 479):
        registration_body.decode(data, version, 0)


def compressed_registration(data: bytes) -> None:
    registration_body.decode(zlib.compress(data), 479, 0)


def property_file(data: bytes) -> None:
    settings = {p.key: p.value for p in java_properties.parse(java_properties.decode(data))}
    for key, value in settings.items():
        written = java_properties.replace(java_properties.decode(data), {key: value})
        assert {p.key: p.value for p in java_properties.parse(written)} == settings


def names_of(data: bytes) -> None:
    names.topic_error(text(data))
    names.group_error(text(data))
    parse_offset_message_id(text(data))
    parse_properties_text(data)


TARGETS = {
    "session": Target(session, [FRAMES, BINARY_105, json_frame({"code": 9}) * 3]),
    "json header": Target(lambda d: decode_header(0, d), [JSON_HEADER], (SessionError,)),
    "binary header": Target(lambda d: decode_header(1, d), [BINARY_105[8:]], (SessionError,)),
    "record": Target(lambda d: decode_record(d, check_crc=True), [RECORD], (RecordError,)),
    "record unchecked": Target(lambda d: decode_record(d), [RECORD], (RecordError,)),
    "records": Target(split, [RECORD * 2], (RecordError,)),
    "batch": Target(batch, [ITEM, ITEM * 3], (BatchError,)),
    "properties": Target(properties, [PROPERTIES]),
    "lenient json": Target(lenient_json.loads, [FASTJSON, HEARTBEAT], (ValueError,)),
    "heartbeat": Target(heartbeat.decode, [HEARTBEAT], (heartbeat.HeartbeatError,)),
    "registration": Target(registration, [REGISTRATION], (registration_body.BodyError,)),
    "compressed registration": Target(
        compressed_registration, [UNPACKED], (registration_body.BodyError,)
    ),
    "zlib registration": Target(
        registration, [zlib.compress(UNPACKED, 9)], (registration_body.BodyError,)
    ),
    "proxy preamble": Target(preamble, [PROXY_V1, PROXY_V2], (PreambleError,)),
    "property file": Target(property_file, [CONF]),
    "broker.conf": Target(
        lambda d: config_file.load(java_properties.decode(d), "f"), [CONF], (ConfigError,)
    ),
    "namesrv.conf": Target(
        lambda d: namesrv_config.load(java_properties.decode(d), "f"),
        [b"listenPort=1\norderMessageEnable=true\n"],
        (ConfigError,),
    ),
    "addresses": Target(lambda d: parse_addresses(text(d)), [b"a:1;[::1]:2"], (ConfigError,)),
    "attributes": Target(
        lambda d: attributes.apply(
            {}, attributes.parse(text(d)), attributes.TOPIC_ATTRIBUTES, creating=True
        ),
        [b"+message.type=FIFO,+reserve.time=5"],
        (attributes.AttributeChangeError,),
    ),
    "tag expression": Target(
        lambda d: parse_subscription("T", text(d), 0, "TAG"), [b"a || b"], (ExpressionError,)
    ),
    "sql92": Target(
        lambda d: compile_sql92(text(d)),
        [b"a > 5 AND b IN ('x','y') OR NOT (c IS NULL) AND d BETWEEN 1 AND 2.5 AND e CONTAINS 'f'"],
        (ExpressionSyntaxError,),
    ),
    "delay levels": Target(lambda d: parse_levels(text(d)), [b"1s 5m 2h 1d"], (LevelError,)),
    "pop handle": Target(
        lambda d: parse_handle(text(d)),
        [b"0 1700000000000 60000 3 0 broker-a 1 5", b"0 1 2 3 1 b 4"],
        (HandleError,),
    ),
    "names": Target(names_of, [b"T", b"7F00000100002A9F0000000000004000", b"k=v\n"]),
}
