"""Settings: property files as Java reads them, and values that cannot be."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import msgspec
import pytest

from firearrow import config, config_file
from firearrow.codec import java_properties
from firearrow.config import BrokerSettings
from firearrow.config_values import ConfigError, parse_addresses
from firearrow.namesrv import settings as namesrv_config
from firearrow.namesrv.settings import NamesrvSettings
from firearrow.plan import Plan

SOURCE = Path(config.__file__).parent


# -- property files


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=b", {"a": "b"}),
        ("a = b", {"a": "b"}),
        ("a:b", {"a": "b"}),
        ("a b c", {"a": "b c"}),
        ("a\tb", {"a": "b"}),
        ("a=b=c:d", {"a": "b=c:d"}),
        ("a", {"a": ""}),
        ("a=", {"a": ""}),
        ("  a = b  ", {"a": "b"}),
        ("# a=b\n! c=d\n   # e=f\n", {}),
        ("a=b # c", {"a": "b # c"}),
        ("a=1\r\nb=2\rc=3\n\n", {"a": "1", "b": "2", "c": "3"}),
        ("a=one \\\n    two\\\n  three", {"a": "one twothree"}),
        ("a=one\\\\\nb=2", {"a": "one\\", "b": "2"}),
        ("a=one\\\n# no comment", {"a": "one# no comment"}),
        ("a=end\\", {"a": "end"}),
        (r"a\=b\:c\ d=e", {"a=b:c d": "e"}),
        (r"a=\t\n\r\f\q", {"a": "\t\n\r\fq"}),
        (r"a=C:\\rocketmq\\store", {"a": "C:\\rocketmq\\store"}),
        (r"a=\u706b\u7BAD", {"a": "火箭"}),
        (r"a=\ud83d\ude80", {"a": "🚀"}),
        (r"a=\u12", {"a": "u12"}),
        ("a=火箭", {"a": "火箭"}),
        ("a=1\na=2", {"a": "2"}),
        ("", {}),
    ],
)
def test_files_are_read_as_java_reads_them(text: str, expected: dict[str, str]) -> None:
    assert {p.key: p.value for p in java_properties.parse(text)} == expected


def test_lines_are_counted_over_continuations() -> None:
    text = "# one\na=1\\\n  2\n\nb=3\n"
    assert [(p.line, p.end, p.key) for p in java_properties.parse(text)] == [
        (2, 3, "a"),
        (5, 5, "b"),
    ]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"a=\xe7\x81\xab", "a=火"),
        (b"\xef\xbb\xbfa=b", "a=b"),  # as Windows editors begin a file
        (b"a=M\xfcnchen", "a=München"),  # as Java reads it
    ],
)
def test_any_file_has_a_text(data: bytes, text: str) -> None:
    assert java_properties.decode(data) == text


def test_a_changed_value_leaves_the_rest_of_the_file_alone() -> None:
    text = "# mine\nbrokerName = a\n\nfileReservedTime=\\\n  48\ndeleteWhen=04\nfileReservedTime=50"
    changed = {"fileReservedTime": "72", "flushDiskType": "SYNC_FLUSH"}
    assert java_properties.replace(text, changed) == (
        "# mine\nbrokerName = a\n\nfileReservedTime=\\\n  48\ndeleteWhen=04\n"
        "fileReservedTime=72\nflushDiskType=SYNC_FLUSH\n"
    )


@pytest.mark.parametrize("value", ["C:\\x", " blank first", "line\nbreak", "火箭 🚀", "", "a=b"])
def test_a_value_is_read_back_as_it_was_written(value: str) -> None:
    for text in ("", "key=old\nb=1", "key=a\\\n  b\n"):
        written = java_properties.replace(text, {"key": value})
        assert {p.key: p.value for p in java_properties.parse(written)}["key"] == value
        assert written.isascii()


# -- keys


def test_a_broker_conf_of_rocketmq_is_understood_without_a_warning() -> None:
    settings, warnings = config_file.load(
        "brokerClusterName = DefaultCluster\nbrokerName = broker-a\nbrokerId = 0\n"
        "deleteWhen = 04\nfileReservedTime = 48\nbrokerRole = ASYNC_MASTER\n"
        "flushDiskType = SYNC_FLUSH\nsendMessageThreadPoolNums=16\nwarmMapedFileEnable=true\n",
        "broker.conf",
    )
    assert warnings == []
    assert (settings.broker_name, settings.file_reserved_time) == ("broker-a", 48)
    assert settings.flush_disk_type == "SYNC_FLUSH"


def test_an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() -> None:
    _, warnings = config_file.load("brokerName=a\nflushDiskTipe=SYNC_FLUSH\nqqq=1\n", "my.conf")
    assert warnings == [
        "my.conf, line 2: flushDiskTipe is not a setting here and has no effect; "
        "did you mean flushDiskType?",
        "my.conf, line 3: qqq is not a setting here and has no effect",
    ]


def test_every_setting_is_used_somewhere() -> None:
    """A key that is accepted and has no effect would be a lie to an operator."""
    used = {
        node.attr
        for path in SOURCE.rglob("*.py")
        if path.name != "config.py"
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
    }
    # Read by the page that loads them.
    of_config = {"broker_role", "config_black_list"}
    names = {field.name for field in msgspec.structs.fields(BrokerSettings)}
    assert names - used - of_config == set()
    assert {field.name for field in msgspec.structs.fields(NamesrvSettings)} - used == {
        "un_register_broker_queue_capacity",  # nothing queues here
        "config_store_path",  # the file given with -c
    }


def test_keys_without_an_effect_are_no_settings() -> None:
    for field in msgspec.structs.fields(BrokerSettings):
        assert not config_file.WITHOUT_EFFECT.fullmatch(field.encode_name), field.encode_name


# -- values


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("listenPort=70000", "must be 3 to 65534"),
        ("listenPort=2", "must be 3 to 65534"),
        ("listenPort=-1", "must be 3 to 65534"),
        ("listenPort=10.911", "must be a whole number"),
        ("listenPort=", "must be a whole number"),
        ("listenPort=1_000", "must be a whole number"),
        ("listenPort=" + "9" * 5000, "must be a whole number"),
        ("haListenPort=65536", "must be 0 to 65535"),
        ("fileReservedTime=-1", "must be at least 0"),
        ("fileReservedTime=seventy", "must be a whole number"),
        ("diskMaxUsedSpaceRatio=101", "must be 1 to 100"),
        ("diskSpaceWarningLevelRatio=0", "must be 1 to 100"),
        ("brokerPermission=8", "must be 0 to 7"),
        ("cleanResourceInterval=0", "must be at least 1"),
        ("flushIntervalCommitLog=0", "must be at least 1"),
        ("mappedFileSizeCommitLog=10", "must be 65536 to"),
        ("maxMessageSize=999999999", "must be 1 to 16777216"),
        ("defaultTopicQueueNums=0", "must be 1 to 65535"),
        ("autoCreateTopicEnable=yes", "must be true or false"),
        ("flushDiskType=SYNC", "must be one of ASYNC_FLUSH, SYNC_FLUSH"),
        ("brokerRole=LEADER", "must be one of ASYNC_MASTER, SYNC_MASTER"),
        ("deleteWhen=25", "must be hours of the day, such as 04 or 04;16"),
        ("deleteWhen=4am", "must be hours of the day"),
        ("deleteWhen=", "must be hours of the day"),
        ("messageDelayLevel=1s 5", "must be times such as"),
        ("brokerName=", "must not be empty"),
        ("brokerIP1=10.0.0.1:10911", "must be a host or an address alone"),
        ("bindAddress=http://x", "must be a host or an address alone"),
        ("namesrvAddr=localhost", "localhost is not an address; write host:port;host:port"),
        ("namesrvAddr=a:9876,b:9876", "a:9876,b:9876"),
        ("namesrvAddr=a:9876;b:99999", "b:99999: the port must be 1 to 65535"),
        ("namesrvAddr=::1:9876;x", "x is not an address"),
        ("brokerId=1", "must be 0: a slave would copy its master"),
        ("brokerRole=SLAVE", "replication is not served yet"),
        ("aclEnable=true", "access control is not served yet"),
        ("enableControllerMode=true", "failover by a controller is not served yet"),
        ("storePathCommitLog=/data/log", "move it to"),
    ],
)
def test_a_value_that_cannot_be_stops_the_start_in_one_sentence(line: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_file.load(f"# mine\n{line}\n", "my.conf")
    text = str(caught.value)
    assert text.startswith("my.conf, line 2: ")
    assert line.partition("=")[0] in text
    assert said in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "line",
    [
        "deleteWhen=04;16",
        "deleteWhen=4",
        "namesrvAddr=a:9876; b.example:9877 ;[::1]:9876;",
        "namesrvAddr=",
        "brokerIP1=",
        "brokerIP1=fe80::1",
        "aclEnable=false",
        "storeType=default",
        "brokerPermission=0",
        "storePathRootDir=/data\nstorePathCommitLog=/data/commitlog/",
    ],
)
def test_values_that_are_right(line: str) -> None:
    assert config_file.load(line, "my.conf")[1] == []


def test_a_master_that_would_wait_for_slaves_is_warned_about() -> None:
    _, warnings = config_file.load("brokerRole=SYNC_MASTER", "my.conf")
    assert warnings == ["my.conf: brokerRole=SYNC_MASTER waits for nobody, there are no slaves yet"]


def test_addresses_of_name_servers() -> None:
    assert parse_addresses("a:9876; 10.0.0.1:1 ;;[fe80::1]:2") == [
        ("a", 9876),
        ("10.0.0.1", 1),
        ("fe80::1", 2),
    ]


# -- flags


def plan(config_file: str | None = None, **flags: object) -> Plan:
    options = {
        "namesrv": True,
        "broker": True,
        "config": config_file,
        "host": None,
        "store": None,
        "tls_mode": "permissive",
        "tls_cert": None,
        "tls_key": None,
        "tls_test_certificate": False,
        **flags,
    }
    return Plan.from_options(**options)  # type: ignore[arg-type]


def test_without_anything_it_is_loopback_and_rocketmqs_ports() -> None:
    made = plan()
    assert (made.host, made.namesrv_port, made.broker_port) == ("127.0.0.1", 9876, 10911)
    assert made.store == "./firearrow-store"


def test_flags_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "broker.conf"
    file.write_text(
        "listenPort=20911\nstorePathRootDir=/data\nbindAddress=0.0.0.0\nnamesrvAddr=a:1"
    )
    made = plan(str(file))
    assert (made.host, made.broker_port, made.store) == ("0.0.0.0", 20911, "/data")
    made = plan(
        str(file), host="127.0.0.2", broker_port=30911, store="/other", namesrv_addr="b:2;c:3"
    )
    assert (made.host, made.broker_port, made.store) == ("127.0.0.2", 30911, "/other")
    shown = config.as_properties(made.settings)
    assert shown["namesrvAddr"] == "b:2;c:3"
    assert (shown["bindAddress"], shown["listenPort"], shown["storePathRootDir"]) == (
        "127.0.0.2",
        30911,
        "/other",
    )


def test_a_name_server_has_a_file_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "namesrv.conf"
    file.write_text("listenPort=19876\norderMessageEnable=true\nkvConfigPath=/x\nlistenPart=1\n")
    made = plan(str(file), broker=False)
    assert made.namesrv_port == 19876
    assert made.namesrv_settings.order_message_enable
    assert made.warnings == [
        f"{file}, line 4: listenPart is not a setting here and has no effect; "
        "did you mean listenPort?"
    ]
    with pytest.raises(ConfigError, match=r"line 1: listenPort=0: must be 1 to 65535"):
        namesrv_config.load("listenPort=0", "namesrv.conf")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"namesrv_addr": "nowhere"}, "namesrvAddr=nowhere: nowhere is not an address"),
        ({"broker_port": 2}, "listenPort=2: must be 3 to 65534"),
        ({"config_file": "/nowhere/broker.conf"}, "cannot read /nowhere/broker.conf: No such file"),
    ],
)
def test_wrong_flags_are_said(flags: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan(**flags)


# -- changes at run time


def test_a_change_counts_as_a_whole_or_not_at_all() -> None:
    settings = BrokerSettings()
    with pytest.raises(ConfigError, match="fileReservedTime=x"):
        config.update(settings, {"deleteWhen": "05", "fileReservedTime": "x"})
    assert settings.delete_when == "04"
    assert config.update(settings, {"deleteWhen": "05", "unknown": "1"}) == {"deleteWhen": "05"}
    assert settings.delete_when == "05"


def test_a_change_that_cannot_be_saved_does_not_count() -> None:
    settings = BrokerSettings()

    def full(changed: object) -> None:
        raise ConfigError("cannot write broker.conf")

    with pytest.raises(ConfigError, match="cannot write"):
        config.update(settings, {"deleteWhen": "05"}, full)
    assert settings.delete_when == "04"


@pytest.mark.parametrize("key", ["configBlackList", "brokerConfigPath", "rocketmqHome"])
def test_some_keys_are_not_for_clients(key: str) -> None:
    settings = BrokerSettings()
    with pytest.raises(PermissionError, match="black list"):
        config.update(settings, {key: "x", "deleteWhen": "05"})
    assert settings.delete_when == "04"


# -- a proxy alone


def test_a_proxy_takes_the_file_of_rocketmqs_own(tmp_path: Path) -> None:
    file = tmp_path / "rmq-proxy.json"
    file.write_text(
        '{"rocketMQClusterName": "DefaultCluster", "namesrvAddr": "n:1;m:2",'
        ' "grpcServerPort": 18081, "maxMessageSize": 1024, "remotingAccessAddr": "10.0.0.9"}'
    )
    made = plan(str(file), namesrv=False, broker=False)
    assert (made.proxy_port, made.settings.namesrv_addr) == (18081, "n:1;m:2")
    assert (made.settings.max_message_size, made.settings.broker_ip1) == (1024, "10.0.0.9")
    assert made.warnings == [f"{file}: without effect here: rocketMQClusterName"]
    made = plan(str(file), namesrv=False, broker=False, proxy_port=7, namesrv_addr="o:3")
    assert (made.proxy_port, made.settings.namesrv_addr) == (7, "o:3")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"grpcServerPort": 70000, "namesrvAddr": "n:1"}', "grpcServerPort=70000: must be"),
        ('{"namesrvAddr": "nowhere"}', "nowhere is not an address"),
        ('{"namesrvAddr": ', "rmq-proxy.json: "),
        ("{}", "through name servers: give them with -n"),
    ],
)
def test_what_is_wrong_in_a_proxys_file_is_said(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rmq-proxy.json"
    file.write_text(text)
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan(str(file), namesrv=False, broker=False)
