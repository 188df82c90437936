"""Messages as gRPC consumers get them, whatever their properties are, and however often."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from firearrow.codec.properties import format_properties
from firearrow.codec.record import Record
from firearrow.protocol.grpc.pb import definition_pb2 as v2
from firearrow.protocol.grpc.pb import service_pb2 as rpc
from firearrow.protocol.grpc.protobuf import BYTES, NUMBER, key, part, varint
from firearrow.proxy.checks import RESERVED
from firearrow.proxy.encoding import delivered

HOST = bytes((127, 0, 0, 1, 0, 0, 42, 159))
NAMES = [
    "UNIQ_KEY", "KEYS", "TAGS", "BORN_TIMESTAMP", "__BORNHOST", "__SHARDINGKEY", "MYKEYS",
    "NO_BORN_TIMESTAMP", "mine",
]  # fmt: skip
texts = st.text(st.characters(exclude_characters="\x01\x02", exclude_categories=["Cs"]), min_size=1)
properties = st.dictionaries(st.sampled_from(NAMES), texts)
int64s = st.integers(-(2**63), 2**63 - 1)


def record(properties: bytes, body: bytes, offset: int, time_ms: int) -> Record:
    return Record(
        size=0,
        version=1,
        body_crc=0,
        queue_id=3,
        flag=0,
        queue_offset=offset,
        physical_offset=99,
        sys_flag=0,
        born_timestamp=time_ms,
        born_host=HOST,
        store_timestamp=time_ms + 1,
        store_host=HOST,
        reconsume_times=2,
        prepared_offset=0,
        body=body,
        topic="orders",
        properties=properties,
    )


@given(
    st.lists(properties, min_size=1, max_size=5),
    st.binary(max_size=300),
    st.integers(0, 2**63 - 1),
    st.integers(0, 2**40),
)
def test_every_property_arrives(
    several: list[dict[str, str]], body: bytes, offset: int, time_ms: int
) -> None:
    for stored in several:
        stored_record = record(format_properties(stored), body, offset, time_ms)
        message_id, data = delivered(stored_record, "orders", "handle", 5)
        message = v2.Message.FromString(data)
        system = message.system_properties
        assert dict(message.user_properties) == {
            name: value for name, value in stored.items() if name not in RESERVED
        }
        assert message_id == system.message_id
        assert message_id == stored.get("UNIQ_KEY", HOST.hex().upper() + f"{99:016X}")
        assert list(system.keys) == [each for each in stored.get("KEYS", "").split(" ") if each]
        assert (system.HasField("tag"), system.tag) == ("TAGS" in stored, stored.get("TAGS", ""))
        assert system.born_host == stored.get("__BORNHOST", "127.0.0.1")
        assert system.message_group == stored.get("__SHARDINGKEY", "")
        assert (message.body, message.topic.name) == (body, "orders")
        assert (system.queue_id, system.queue_offset, system.delivery_attempt) == (3, offset, 3)
        assert (system.receipt_handle, system.store_host) == ("handle", "127.0.0.1:10911")
        assert system.born_timestamp.ToMilliseconds() == time_ms
        assert system.store_timestamp.ToMilliseconds() == time_ms + 1


@given(int64s, st.binary(max_size=40_000))
def test_the_wire_format(number: int, data: bytes) -> None:
    encoded = key(v2.SystemProperties.QUEUE_OFFSET_FIELD_NUMBER, NUMBER) + varint(number)
    assert v2.SystemProperties.FromString(encoded).queue_offset == number
    assert v2.Message.FromString(part(v2.Message.BODY_FIELD_NUMBER, data)).body == data
    assert key(1, BYTES) == rpc.SendMessageRequest(messages=[v2.Message()]).SerializeToString()[:1]
