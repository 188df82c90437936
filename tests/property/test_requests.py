"""Every request of both servers under garbage: an answer that was foreseen, and nothing else."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.brokers import World
from tests.support.namesrv import NameServerWorld, topic_config

from firearrow.model import codes

TEXTS = [
    "",
    " ",
    "T",
    "group",
    "broker-a",
    "%RETRY%group",
    "../../etc/passwd",
    "a/b",
    "\0",
    "ü火🚀",
    "\udcff".encode("utf-8", "replace").decode(),
    "x" * 300,
    "x" * 40_000,
    "null",
    "a:b;c:d",
    "+k=v,-l",
    "{}",
]
NUMBERS = ["0", "1", "3", "-1", "-2", "7", "65536", "2147483647", "-2147483648"]
NUMBERS += ["9223372036854775807", "-9223372036854775808"]
WRONG_NUMBERS = ["", "x", "1.5", "NaN", "Infinity", "1e999", "99999999999999999999999", "0x10"]
BOOLEANS = ["true", "false", "TRUE", "1", "x", ""]

# Members that bodies of some request have, so that garbage gets past the first look.
KEYS = sorted(
    {"topic", "groupName", "clientID", "producerDataSet", "consumerDataSet", "subscriptionDataSet"}
    | {"subString", "subVersion", "expressionType", "mqSet", "queueId", "brokerName", "acks"}
    | {"consumerGroup", "clientId", "topicConfigList", "topicName", "perm", "attributes", "table"}
    | {"readQueueNums", "groupConfigList", "queueDatas", "offsetTable", "mode", "counter", "order"}
    | {"subscriptionData", "topicConfigSerializeWrapper", "topicConfigTable", "dataVersion"}
    | {"popShareQueueNum", "consumeType", "messageModel", "consumeFromWhere", "brokerId", "rt"}
)
SCALARS: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(TEXTS),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=6)
    ),
    max_leaves=12,
)
BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=60),
    JSON.map(msgspec.json.encode),
    st.sampled_from([b"[" * 5000, b'{"a":' * 5000, b"NaN", b"1e999", b'{"a":1,"a":2}', b"\xff{}"]),
    st.text("abcFlush=\\\n#", max_size=40).map(str.encode),
)


def extension(kind_of_fields: type[Any]) -> st.SearchStrategy[dict[str, str]]:
    """Ext fields of a request: any may be missing, most have a value of their kind."""
    fields = {}
    for field in msgspec.structs.fields(kind_of_fields):
        kind = str(field.type)
        values = TEXTS + NUMBERS if "str" in kind else NUMBERS if "int" in kind else BOOLEANS
        fields[field.encode_name] = st.sampled_from(values + values + WRONG_NUMBERS)
    return st.fixed_dictionaries({}, optional=fields)


class Broken(logging.Handler):
    """Keeps what was logged with a traceback: an error that nobody foresaw."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.found.append(record)


@pytest.fixture
def broken() -> Iterator[Broken]:
    handler = Broken()
    logging.getLogger().addHandler(handler)
    yield handler
    logging.getLogger().removeHandler(handler)


def busy_broker(root: Path) -> World:
    """A broker with a topic, messages, a member and an offset."""
    world = World(root)
    client = world.connect()
    client.heartbeat("group", {"T": "*"}, producers=["producers"])
    for _ in range(3):
        client.produce("T", b"hello")
        client.produce("Kept", b"hello")
    client.call(15, {"consumerGroup": "group", "topic": "T", "queueId": 0, "commitOffset": 1})
    return world


def busy_name_server() -> NameServerWorld:
    world = NameServerWorld()
    world.broker().register("T", topic_config("U", perm=4))
    world.kv.put("N", "k", "v")
    return world


class Targets:
    """Both servers; the broker is opened by the first test that needs it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.broker = busy_broker(root)
        self.name_server = busy_name_server()


@pytest.fixture(scope="module")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Targets]:
    targets = Targets(tmp_path_factory.mktemp("garbage") / "store")
    yield targets
    targets.broker.stop()
    again = World(targets.root)  # whatever was kept of the garbage can be loaded
    assert again.connect().pull("Kept").code == codes.SUCCESS
    again.stop()


def requests_of() -> list[tuple[str, int, type[Any]]]:
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root))
        routes = [("broker", code, route.fields) for code, route in world.broker.routes().items()]
        world.stop()
    of_name_server = NameServerWorld().server.routes().items()
    return routes + [("name server", code, route.fields) for code, route in of_name_server]


@pytest.mark.parametrize(
    ("server", "code", "fields"), [pytest.param(*r, id=f"{r[0]}-{r[1]}") for r in requests_of()]
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_garbage_gets_an_answer(
    targets: Targets,
    broken: Broken,
    server: str,
    code: int,
    fields: type[Any],
    data: st.DataObject,
) -> None:
    world = targets.broker if server == "broker" else targets.name_server
    client = world.connect()
    before = len(broken.found)
    ext, body = data.draw(extension(fields), "ext"), data.draw(BODIES, "body")
    client.send(code, ext, body, version=data.draw(st.sampled_from([0, 36, 317, 399, 513])))
    world.clock.advance(data.draw(st.sampled_from([0, 0, 0, 1, 20])))
    client.drop()
    new = broken.found[before:]
    assert not new, f"{new[0].getMessage()}: {logging.Formatter().format(new[0])[-1500:]}"
    # A broker that registers with a short heartbeat timeout, and is silent, is rightly dropped.
    assert client.peer.close_reason in ("", "the broker was silent for too long")
