"""What becomes of lite topics, their events and their clients as time goes by."""

from __future__ import annotations

from pathlib import Path

from tests.support.brokers import Connection, World, send_fields
from tests.support.lite import (
    CLIENT_INFO,
    DISPATCH,
    GROUP,
    GROUP_INFO,
    PARENT,
    PARENT_INFO,
    POP_LITE,
    TOPIC_INFO,
    ack,
    bodies,
    create_group,
    create_parent,
    got,
    lite_world,
    pop,
    pop_fields,
    queue_of,
    send,
    subscribe,
)

MINUTE = 60


def offsets_of(client: Connection, lite_topic: str) -> tuple[int, int]:
    answer = client.call(TOPIC_INFO, {"parentTopic": PARENT, "liteTopic": lite_topic})
    offsets = answer.json()["topicOffset"]
    return offsets["minOffset"], offsets["maxOffset"]


def live(world: World, client: Connection, minutes: float, *lite_topics: str) -> None:
    """Let time pass, with subscriptions renewed every half minute."""
    for _ in range(round(minutes * 2)):
        subscribe(client, *lite_topics, action="COMPLETE_ADD")
        world.clock.advance(30)


# -- expiry


def test_a_lite_topic_that_is_over_is_gone_with_its_offsets(
    world: World, client: Connection
) -> None:
    create_parent(client, minutes=20)
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b")
    for message in pop(client):
        ack(client, message)
    assert world.core.offsets.find(queue_of("d1"), GROUP, 0) == 2
    live(world, client, 19, "d1")
    assert offsets_of(client, "d1") == (0, 2)
    live(world, client, 4, "d1")
    assert offsets_of(client, "d1") == (0, 0)
    assert world.core.offsets.find(queue_of("d1"), GROUP, 0) is None
    assert client.call(PARENT_INFO, {"topic": PARENT}).json()["liteTopicCount"] == 0
    subscribe(client, "d1", action="COMPLETE_ADD")
    send(client, "d1", b"new")
    (message,) = pop(client)
    assert (message.offset, message.body) == (0, b"new")


def test_messages_that_nobody_consumed_do_not_keep_it(world: World, client: Connection) -> None:
    create_parent(client, minutes=1)
    send(client, "d1", b"a")
    world.clock.advance(14 * MINUTE)
    assert offsets_of(client, "d1") == (0, 1), "never within minLiteTTl"
    world.clock.advance(4 * MINUTE)
    assert offsets_of(client, "d1") == (0, 0)


def test_a_write_keeps_it(world: World, client: Connection) -> None:
    create_parent(client, minutes=20)
    for _ in range(6):
        send(client, "d1", b"x")
        world.clock.advance(10 * MINUTE)
    assert offsets_of(client, "d1") == (0, 6)


def test_without_an_expiration_it_lives_for_ever(world: World, client: Connection) -> None:
    send(client, "d1", b"a")
    world.clock.advance(48 * 60 * MINUTE)
    assert offsets_of(client, "d1") == (0, 1)


def test_other_light_queues_are_left_alone(world: World, client: Connection) -> None:
    create_parent(client, minutes=20)
    client.produce(PARENT, b"x", properties="INNER_MULTI_DISPATCH\x01%LMQ%mine\x02")
    world.clock.advance(60 * MINUTE)
    assert len(client.pull("%LMQ%mine").records()) == 1


def test_nothing_is_deleted_soon_after_a_restart(tmp_path: Path) -> None:
    world = lite_world(tmp_path)
    client = world.connect()
    create_parent(client, minutes=20)
    send(client, "d1", b"a")
    world.stop()
    world.clock.advance(60 * MINUTE)
    again = lite_world(tmp_path, clock=world.clock)
    client = again.connect()
    create_parent(client, minutes=20)
    again.clock.advance(14 * MINUTE)
    assert offsets_of(client, "d1") == (0, 1)
    again.clock.advance(4 * MINUTE)
    assert offsets_of(client, "d1") == (0, 0)
    again.stop()


def test_many_are_deleted_without_holding_others_up(world: World, client: Connection) -> None:
    create_parent(client, minutes=16)
    for number in range(1600):
        send(client, f"d{number}", b"x")
    info = client.call(PARENT_INFO, {"topic": PARENT}).json()
    assert (info["liteTopicCount"], info["lmqNum"]) == (1600, 1600)
    world.clock.advance(20 * MINUTE)
    assert client.call(PARENT_INFO, {"topic": PARENT}).json()["liteTopicCount"] == 0
    assert world.store.max_offset(queue_of("d77"), 0) == 0


def test_a_deleted_parent_takes_its_lite_topics_along(world: World, client: Connection) -> None:
    create_parent(client, "others")
    send(client, "d1", b"a")
    send(client, "d1", b"a", topic="others")
    assert client.call(215, {"topic": PARENT}).code == 0
    world.clock.advance(1)
    assert world.store.max_offset(queue_of("d1"), 0) == 0
    assert world.store.max_offset(queue_of("d1", "others"), 0) == 1


def test_a_lite_topic_made_anew_survives_a_kill(tmp_path: Path) -> None:
    """Its files of before may still be on the disk, with higher offsets than the new ones."""
    world = lite_world(tmp_path)
    client = world.connect()
    create_parent(client, minutes=16)
    send(client, "d1", b"old", b"older", b"oldest")
    world.clock.advance(5 * MINUTE)  # their entries are in a file
    folder = next((tmp_path / "consumequeue").glob("*$d1"))
    saved = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert saved
    world.clock.advance(15 * MINUTE)
    assert world.store.max_offset(queue_of("d1"), 0) == 0
    send(client, "d1", b"new", b"newer")
    world.store.disk.unlock()  # as if the process had been killed
    for path, data in saved.items():  # before the old files were gone
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    again = lite_world(tmp_path, clock=world.clock)
    client = again.connect()
    subscribe(client, "d1")
    assert bodies(pop(client)) == [b"new", b"newer"]
    again.stop()


# -- events


def test_events_of_a_client_that_does_not_come_go_to_another(
    world: World, client: Connection
) -> None:
    for name in ("c1", "c2"):
        subscribe(client, "d1", "d2", "d3", "d4", client_id=name)
    for number in range(1, 5):
        send(client, f"d{number}", b"%d" % number)
    mine = bodies(pop(client))
    assert 0 < len(mine) < 4
    for _ in range(3):
        world.clock.advance(10)
        mine += bodies(pop(client))
    assert sorted(mine) == [b"1", b"2", b"3", b"4"]


def test_events_of_a_client_that_leaves_go_to_another(client: Connection) -> None:
    for name in ("c1", "c2"):
        subscribe(client, "d1", "d2", client_id=name)
    send(client, "d1", b"x")
    send(client, "d2", b"y")
    subscribe(client, action="COMPLETE_REMOVE")
    assert sorted(bodies(pop(client, "c2"))) == [b"x", b"y"]


def test_what_a_client_took_and_lost_with_its_connection_comes_again(
    world: World, client: Connection
) -> None:
    subscribe(client, "d1")
    subscribe(client, "d1", client_id="c2")
    send(client, "d1", b"x")
    first = pop(client, invisibleTime=30_000) + pop(client, "c2", invisibleTime=30_000)
    assert bodies(first) == [b"x"]
    subscribe(client, action="COMPLETE_REMOVE")
    client.send(POP_LITE, pop_fields("c2", pollTime=60_000))
    world.clock.advance(31)
    (answer,) = client.received()
    assert bodies(got(answer)) == [b"x"]


def test_more_lite_topics_than_events_are_all_delivered(world: World, client: Connection) -> None:
    create_group(client, lite_sub_client_max_event_cnt="10")
    names = [f"d{number}" for number in range(60)]
    subscribe(client, *names)
    for name in names:
        send(client, name, name.encode())
    found = []
    for _ in range(20):
        for message in pop(client):
            found.append(message.lite_topic)
            ack(client, message)
    assert sorted(found) == sorted(names)


def test_a_wildcard_group_with_more_than_fits_gets_all(world: World, client: Connection) -> None:
    create_group(client, lite_sub_wildcard="true", lite_sub_client_max_event_cnt="10")
    for number in range(60):
        send(client, f"d{number}", b"x")
    found = []
    for _ in range(20):
        subscribe(client, action="COMPLETE_ADD")
        world.clock.advance(10)
        for message in pop(client):
            found.append(message.lite_topic)
            ack(client, message)
    assert len(found) == len(set(found)) == 60


def test_an_operator_can_have_a_group_looked_through(world: World, client: Connection) -> None:
    subscribe(client, "d1")
    send(client, "d1", b"x")
    (message,) = pop(client)
    fields = {"commitOffset": 0, "topic": queue_of("d1"), "consumerGroup": GROUP, "queueId": 0}
    ack(client, message)
    assert client.call(15, fields).code == 0
    assert pop(client) == []
    assert client.call(DISPATCH, {"group": GROUP}).code == 0
    assert bodies(pop(client)) == [b"x"]
    assert client.call(DISPATCH, {"group": GROUP, "clientId": "nobody"}).code == 0
    assert client.call(DISPATCH, {"group": "nowhere"}).code == 26
    client.call(200, body=b'{"groupName":"unbound"}')
    assert client.call(DISPATCH, {"group": "unbound"}).code == 29


# -- what operators see


def test_what_is_told_of_a_group(world: World, client: Connection) -> None:
    subscribe(client, "d1", "d2")
    send(client, "d1", b"a", b"b", b"c")
    send(client, "d2", b"d")
    started_ms = world.clock.now_ms()
    world.clock.advance(10)
    ack(client, pop(client)[0])
    info = client.call(GROUP_INFO, {"group": GROUP, "topK": 1}).json()
    assert info["totalLagCount"] == 3
    assert info["lagCountTopK"] == [
        {"earliestUnconsumedTimestamp": started_ms, "lagCount": 2, "liteTopic": "d1"}
    ]
    one = client.call(GROUP_INFO, {"group": GROUP, "liteTopic": "d1"}).json()
    assert one["totalLagCount"] == 2
    assert one["liteTopicOffsetWrapper"] == {
        "brokerOffset": 3,
        "consumerOffset": 1,
        "lastTimestamp": started_ms,
        "pullOffset": 0,
    }
    unknown = client.call(GROUP_INFO, {"group": GROUP, "liteTopic": "d9"}).json()
    assert unknown["totalLagCount"] == -1
    assert client.call(GROUP_INFO, {"group": "nowhere"}).code == 26


def test_a_group_is_told_which_lite_topics_wait_longest(tmp_path: Path) -> None:
    world = lite_world(tmp_path, lite_lag_latency_collect_enable=True, lite_lag_latency_top_k=2)
    client = world.connect()
    ask = {"group": GROUP, "topK": 10}
    assert client.call(GROUP_INFO, ask).json()["earliestUnconsumedTimestamp"] == -1
    subscribe(client, *(f"d{n}" for n in range(500)))
    begun_ms = world.clock.now_ms()
    for n in range(500):
        send(client, f"d{n}", b"first", b"second")
        world.clock.advance(0.001)
        (first, _) = pop(client)
        if n < 2:
            ack(client, first)
    client.send(GROUP_INFO, ask)
    world.clock.advance(0)
    (told,) = client.received()
    info = told.json()
    assert info["totalLagCount"] == 998
    assert info["lagTimestampTopK"] == [
        {"earliestUnconsumedTimestamp": begun_ms, "lagCount": 1, "liteTopic": "d0"},
        {"earliestUnconsumedTimestamp": begun_ms + 1, "lagCount": 1, "liteTopic": "d1"},
    ]
    assert info["earliestUnconsumedTimestamp"] == begun_ms
    world.stop()


def test_what_is_told_of_a_client(client: Connection) -> None:
    subscribe(client, "d1", "d2")
    fields = {"parentTopic": PARENT, "group": GROUP, "clientId": "c1", "maxCount": 1}
    info = client.call(CLIENT_INFO, fields).json()
    assert info["liteTopicCount"] == 2
    assert len(info["liteTopicSet"]) == 1
    assert info["lastAccessTime"] == -1
    unknown = client.call(CLIENT_INFO, fields | {"clientId": "nobody"}).json()
    assert unknown["liteTopicCount"] == -1
    assert client.call(CLIENT_INFO, fields | {"parentTopic": "nowhere"}).code == 17
    assert client.call(CLIENT_INFO, fields | {"group": "nowhere"}).code == 26
    client.produce("ordinary")
    assert client.call(PARENT_INFO, {"topic": "ordinary"}).code == 29


def test_what_is_told_of_the_broker(client: Connection) -> None:
    subscribe(client, "d1", "d2")
    send(client, "d1", b"a")
    info = client.call(200074).json()
    assert info["topicMeta"] == {PARENT: -1}
    assert info["groupMeta"] == {PARENT: [GROUP]}
    wanted = ("currentLmqNum", "liteSubscriptionCount", "maxLmqNum", "eventMapSize", "storeType")
    assert [info[key] for key in wanted] == [1, 2, 20_000, 1, "default"]


def test_an_offset_by_time_can_be_asked_for_a_lite_topic(world: World, client: Connection) -> None:
    send(client, "d1", b"a")
    world.clock.advance(10)
    send(client, "d1", b"b")
    fields = {"topic": PARENT, "liteTopic": "d1", "queueId": 0}
    assert client.call(29, fields | {"timestamp": world.clock.now_ms() - 5}).ext["offset"] == "1"
    assert client.call(29, fields | {"timestamp": 0}).ext["offset"] == "0"


# -- what lasts


def test_an_acknowledgement_survives_a_kill(tmp_path: Path) -> None:
    world = lite_world(tmp_path)
    client = world.connect()
    subscribe(client, "d1")
    send(client, "d1", b"a", b"b", b"c")
    for message in pop(client)[:2]:
        assert ack(client, message).code == 0
    world.store.disk.unlock()  # as if the process had been killed
    again = lite_world(tmp_path, clock=world.clock)
    client = again.connect()
    subscribe(client, "d1", action="COMPLETE_ADD")
    assert bodies(pop(client)) == [b"c"]
    again.stop()


def test_with_synchronous_flush_nothing_is_handed_out_before_it_is_on_the_disk(
    tmp_path: Path,
) -> None:
    world = lite_world(tmp_path, flush_disk_type="SYNC_FLUSH")
    client, producer = world.connect(), world.connect()
    subscribe(client, "d1")
    client.send(POP_LITE, pop_fields(pollTime=10_000))
    producer.send(310, send_fields(PARENT, properties="__LITE_TOPIC\x01d1\x02"), b"x")
    assert producer.received() == []
    assert client.received() == []
    world.clock.advance(1)
    (answer,) = client.received()
    assert bodies(got(answer)) == [b"x"]
    world.stop()
