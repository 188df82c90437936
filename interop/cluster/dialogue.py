"""What brokers and operators say to a name server, and what it answers: the same words for ours
and for Java's, so that the answers can be compared."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from interop.cluster.fake import (
    CLUSTER,
    NAME,
    FakeBroker,
    compressed_body,
    json_body,
    topic,
)
from interop.remoting import Answer, Remote

MASTER_PORT, SLAVE_PORT = 12831, 12833
SETTLE_S = 0.4  # Java unregisters in the background
GONE_SECONDS_MAX = 10.0
SILENCE_MS = 1000  # after which a silent broker is dropped
OLD_VERSION = 395  # V4_9_2: keys of maps are bare numbers in routes

Said = dict[str, Any]  # step -> what was answered
FIRST = [topic("one"), topic("two", perm=7), topic("unit", sys_flag=1), topic("sub", sys_flag=2)]


def hold(namesrv: str) -> Said:
    """Everything, against one name server."""
    said: Said = {}
    with Remote(namesrv) as client:
        master = FakeBroker(namesrv, 0, MASTER_PORT)
        slave = FakeBroker(namesrv, 1, SLAVE_PORT)
        try:
            _register(said, client, master)
            _slave(said, client, slave)
            _topics(said, client)
            _leave(said, client, master, slave)
        finally:
            master.close()
            slave.close()
        _key_values(said, client)
        _silence(said, client, namesrv)
    return said


def shown(answer: Answer) -> Any:
    """An answer as plain values; Java says a little more in some remarks."""
    return answer.code, dict(answer.ext), answer.json() if answer.body else None


def route(client: Remote, name: str) -> Any:
    return shown(client.call(105, {"topic": name}))


def _register(said: Said, client: Remote, master: FakeBroker) -> None:
    said["version of an unknown broker"] = shown(master.ask_version(1))
    refused = master.register(json_body([topic("one")], 1))
    said["one topic first"] = shown(refused), refused.remark
    said["registration"] = shown(master.register(json_body(FIRST, 1)))
    said["route"] = route(client, "one")
    old = client.call(105, {"topic": "two"}, version=OLD_VERSION)
    said["route for an old client"] = shown(old), b"{0:" in old.body
    said["same version"] = shown(master.ask_version(1))
    said["other version"] = shown(master.ask_version(2))
    wrong = master.register(json_body(FIRST, 2), bodyCrc32=1)
    said["wrong checksum"] = wrong.code, wrong.remark
    body = compressed_body([*FIRST, topic("three")], 3)
    said["compressed"] = shown(master.register(body, compressed="true"))
    said["route of a topic that came compressed"] = route(client, "three")
    said["one more topic"] = shown(master.register(json_body([topic("four", perm=4)], 4)))
    said["its route"] = route(client, "four")
    said["no body"] = shown(master.register(b"", bodyCrc32=0))
    said["version then"] = shown(master.ask_version(4))
    said["in a zone"] = shown(master.register(json_body(FIRST, 5), __ZONE_NAME="z1"))
    said["route with the zone"] = route(client, "one")
    said["unknown request"] = client.call(9999).code


def _slave(said: Said, client: Remote, slave: FakeBroker) -> None:
    said["slave"] = shown(slave.register(json_body([*FIRST, topic("slave only")], 9)))
    said["route with a slave"] = route(client, "one")
    said["the slave's own topic"] = route(client, "slave only")[0]
    slave.heartbeat()
    for name in (NAME, "nobody"):
        fields = {"clusterName": CLUSTER, "brokerName": name}
        said[f"members of {name}"] = shown(client.call(901, fields))
    info = client.call(106).json()
    said["cluster info"] = info["brokerAddrTable"][NAME], info["clusterAddrTable"][CLUSTER]


def _topics(said: Said, client: Remote) -> None:
    fields = {"brokerName": NAME}
    said["wipe"] = shown(client.call(205, fields)), route(client, "one")[2]["queueDatas"]
    said["add"] = shown(client.call(327, fields)), route(client, "two")[2]["queueDatas"]
    said["wipe of nobody"] = shown(client.call(205, {"brokerName": "nobody"}))
    queues = {"brokerName": NAME, "perm": 6, "readQueueNums": 2, "writeQueueNums": 2}
    body = json_body([], 0)  # not a route: no queues
    said["single topic without queues"] = shown(client.call(217, {"topic": "none"}, body))
    for owner in (NAME, "nobody"):
        text = str({"queueDatas": [{**queues, "brokerName": owner, "topicSysFlag": 0}]})
        answer = client.call(217, {"topic": f"of {owner}"}, text.replace("'", '"').encode())
        said[f"single topic of {owner}"] = shown(answer), route(client, f"of {owner}")[0]
    for code in (311, 312, 313):
        said[f"topics {code}"] = sorted(client.call(code).json()["topicList"] or [])
    listed = client.call(224, {"cluster": CLUSTER}).json()["topicList"]
    said["topics of the cluster"] = sorted(listed)
    said["topics of no cluster"] = shown(client.call(224, {"cluster": "nobody"}))
    system = client.call(304).json()["topicList"]
    said["system topics"] = sorted({CLUSTER, NAME} & set(system))
    said["all topics"] = {"one", "two", "three"} <= set(client.call(206).json()["topicList"])
    deletions = [{"topic": "three"}, {"topic": "two", "clusterName": CLUSTER}, {"topic": "none"}]
    for deletion in deletions:
        answer = client.call(216, deletion)
        said[f"delete {deletion}"] = shown(answer), route(client, deletion["topic"])[0]


def _leave(said: Said, client: Remote, master: FakeBroker, slave: FakeBroker) -> None:
    acting = {"enableActingMaster": "true", "heartbeatTimeoutMillis": 60_000}
    master.register(json_body(FIRST, 20), **acting)
    slave.register(json_body(FIRST, 20), **acting)
    said["master leaves"] = shown(master.unregister())
    time.sleep(SETTLE_S)
    said["route without a master"] = route(client, "one")
    said["version of one that left"] = shown(master.ask_version(20))
    master.register(json_body(FIRST, 21), **acting)
    time.sleep(SETTLE_S)
    said["route with it again"] = route(client, "one")
    said["notices to the master"] = master.notices
    said["notices to the slave"] = slave.notices
    master.unregister()
    slave.remote.close()
    said["the last one's connection ends"] = _gone(client, "one") is not None
    said["cluster info then"] = NAME in client.call(106).json()["brokerAddrTable"]


def _key_values(said: Said, client: Remote) -> None:
    where = {"namespace": "SPACE", "key": "k"}
    said["no value"] = shown(client.call(101, where))
    said["no namespace"] = shown(client.call(219, {"namespace": "SPACE"}))
    said["put"] = shown(client.call(100, {**where, "value": "żółw"}))
    said["get"] = shown(client.call(101, where))
    said["namespace"] = shown(client.call(219, {"namespace": "SPACE"}))
    said["delete"] = shown(client.call(102, where))
    said["get after"] = shown(client.call(101, where))
    said["delete again"] = shown(client.call(102, where))
    said["namespace after"] = shown(client.call(219, {"namespace": "SPACE"}))


def _silence(said: Said, client: Remote, namesrv: str) -> None:
    """A broker with an open connection that says nothing more, after one that goes on."""
    broker = FakeBroker(namesrv, 0, MASTER_PORT)
    try:
        broker.register(json_body(FIRST, 30), heartbeatTimeoutMillis=SILENCE_MS)
        until = time.monotonic() + 2.5 * SILENCE_MS / 1000
        while time.monotonic() < until:
            broker.heartbeat()
            time.sleep(0.2)
        said["heartbeats keep it"] = route(client, "one")[0]
        seconds = _gone(client, "one")
        said["silence drops it"] = seconds is not None and seconds > 0.5
        said["its connection"] = _ends(lambda: broker.ask_version(30))
    finally:
        broker.close()


def _gone(client: Remote, name: str) -> float | None:
    """Seconds until there is no route any more."""
    started = time.monotonic()
    while (seconds := time.monotonic() - started) < GONE_SECONDS_MAX:
        if client.call(105, {"topic": name}).code == 17:
            return seconds
        time.sleep(0.02)
    return None


def _ends(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError:
        return "closed"
    return "open"
