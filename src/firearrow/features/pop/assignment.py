"""Who consumes which queues, and how: QUERY_ASSIGNMENT and SET_MESSAGE_REQUEST_MODE.

Clients with ``clientRebalance=false`` let the broker share the queues out, and learn from it
whether to pull or to pop them. The modes are kept in messageRequestMode.json.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol

import msgspec

from firearrow.broker.cluster_queues import ClusterQueues
from firearrow.broker.groups import Groups
from firearrow.broker.members import Members
from firearrow.broker.topics import Topics
from firearrow.codec import lenient_json, tables
from firearrow.model import codes, names
from firearrow.protocol.remoting import bodies
from firearrow.protocol.remoting.command import Answer, NoFields, Reply, Request
from firearrow.protocol.remoting.session import answer
from firearrow.store.api import Store

MODES_FILE: Final = "messageRequestMode.json"
PULL, POP = "PULL", "POP"
BROADCASTING, CLUSTERING = "BROADCASTING", "CLUSTERING"
ALL_QUEUES: Final = -1
LMQ_QUEUE: Final = 0
_encode = msgspec.json.Encoder().encode

BrokerQueue = tuple[str, int]  # broker name, queue id


class AssignmentSettings(Protocol):
    broker_name: str
    default_message_request_mode: str
    default_pop_share_queue_num: int
    server_load_balancer_enable: bool


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """How a group consumes a topic. Keys in JSON in Java's order."""

    group: str = msgspec.field(name="consumerGroup")
    mode: str = PULL
    share: int = msgspec.field(default=0, name="popShareQueueNum")
    topic: str


class ModesTable(msgspec.Struct, rename="camel"):
    """``messageRequestMode.json``: by topic and group."""

    message_request_mode_map: dict[str, dict[str, Mode]] | None = None


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """The body of QUERY_ASSIGNMENT."""

    client_id: str = msgspec.field(name="clientId")
    group: str = msgspec.field(name="consumerGroup")
    model: str = msgspec.field(default=CLUSTERING, name="messageModel")
    strategy: str | None = msgspec.field(default=None, name="strategyName")
    topic: str


class Assignments:
    """The modes, and the sharing out."""

    def __init__(
        self,
        settings: AssignmentSettings,
        store: Store,
        topics: Topics,
        groups: Groups,
        members: Members,
        cluster_queues: ClusterQueues,
    ) -> None:
        self._settings = settings
        self._store = store
        self._topics = topics
        self._groups = groups
        self._members = members
        self._cluster_queues = cluster_queues
        self._modes: dict[str, dict[str, Mode]] = {}  # by topic and group

    def start(self) -> None:
        saved = self._store.load_config(MODES_FILE, tables.reader(ModesTable)) or ModesTable()
        for groups in (saved.message_request_mode_map or {}).values():
            for mode in groups.values():
                self._keep(mode)
        for mode in self._store.config_notes(MODES_FILE, tables.reader(Mode)):
            self._keep(mode)

    def _keep(self, mode: Mode) -> None:
        self._modes.setdefault(mode.topic, {})[mode.group] = mode

    # -- modes

    def set_mode(self, request: Request[NoFields]) -> Answer:
        """SET_MESSAGE_REQUEST_MODE (401)."""
        try:
            mode = msgspec.convert(lenient_json.loads(request.body), Mode, strict=False)
        except ValueError as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable body: {error}")
        if mode.mode not in (PULL, POP):
            return Reply(codes.SYSTEM_ERROR, f"the mode is PULL or POP, not {mode.mode[:24]!r}")
        if mode.topic.startswith(names.RETRY_PREFIX):
            return Reply(codes.NO_PERMISSION, "retry topic is not allowed to set mode")
        if mode.topic not in self._topics.table:
            return Reply(codes.TOPIC_NOT_EXIST, f"topic[{mode.topic}] not exist")
        if self._groups.find(mode.group) is None:
            return Reply(codes.SUBSCRIPTION_GROUP_NOT_EXIST, "subscription group does not exist")
        self._keep(mode)
        self._store.note_config(MODES_FILE, _encode(mode))
        self._store.save_config(MODES_FILE, self.chunks())
        return Reply()

    def mode_of(self, topic: str, group: str) -> Mode:
        mode = self._modes.get(topic, {}).get(group)
        if mode is not None:
            return mode
        if topic.startswith(names.RETRY_PREFIX):
            return Mode(group=group, topic=topic)
        settings = self._settings
        return Mode(
            group=group,
            mode=settings.default_message_request_mode,
            share=settings.default_pop_share_queue_num,
            topic=topic,
        )

    def chunks(self) -> Iterator[bytes]:
        """The file's content."""
        yield b'{"messageRequestModeMap":' + _encode(self._modes) + b"}"

    # -- assignment

    def query(self, request: Request[NoFields]) -> Answer:
        """QUERY_ASSIGNMENT (400)."""
        try:
            ask = msgspec.convert(lenient_json.loads(request.body), Ask, strict=False)
        except ValueError as error:
            return Reply(codes.SYSTEM_ERROR, f"unreadable body: {error}")
        if ask.model not in (CLUSTERING, BROADCASTING):
            return Reply(codes.SYSTEM_ERROR, f"no message model {ask.model[:24]!r}")
        if ask.model == CLUSTERING and ask.topic.startswith(names.LMQ_PREFIX):
            return self._reply(ask, [(self._settings.broker_name, LMQ_QUEUE)])
        now: list[Reply] = []
        waiting = False

        def found(queues: list[BrokerQueue] | None) -> None:
            reply = self._reply(ask, queues)
            if waiting:
                answer(request, reply)
            else:
                now.append(reply)

        self._cluster_queues.find(ask.topic, found)
        if now:
            return now[0]
        waiting = True
        return None

    def _reply(self, ask: Ask, queues: list[BrokerQueue] | None) -> Reply:
        """Without a list the client keeps what it has; an empty one takes everything away."""
        mode = self.mode_of(ask.topic, ask.group)
        shared = None if queues is None else self._share_out(ask, mode, queues)
        if shared is None:
            return Reply(body=b"{}")
        assignments: list[dict[str, Any]] = [
            {
                "messageQueue": {"brokerName": broker, "queueId": queue_id, "topic": ask.topic},
                "mode": mode.mode,
            }
            for broker, queue_id in dict.fromkeys(shared)
        ]
        return Reply(body=bodies.encode({"messageQueueAssignments": assignments}))

    def _share_out(
        self, ask: Ask, mode: Mode, queues: list[BrokerQueue]
    ) -> list[BrokerQueue] | None:
        if ask.model == BROADCASTING or not self._settings.server_load_balancer_enable:
            return queues
        online = self._members.consumers.get(ask.group)
        strategy = STRATEGIES.get(ask.strategy or "")
        if online is None or strategy is None:
            return None
        clients = sorted(online.client_ids())
        if mode.mode != POP:
            return strategy(ask.client_id, queues, clients)
        if mode.share <= 0 or mode.share >= len(clients) - 1:
            return [(broker, ALL_QUEUES) for broker, _ in queues]
        if ask.client_id not in clients or not queues:
            return []
        first = clients.index(ask.client_id)
        if len(clients) > len(queues):
            return [queues[first % len(queues)]]
        sharers = [clients[(first + n) % len(clients)] for n in range(mode.share + 1)]
        return [queue for sharer in sharers for queue in strategy(sharer, queues, clients)]


def averagely(client_id: str, queues: list[BrokerQueue], clients: list[str]) -> list[BrokerQueue]:
    """``AVG``: neighbouring queues, the first clients one more where it does not come out even."""
    if client_id not in clients:
        return []
    index = clients.index(client_id)
    size, larger = divmod(len(queues), len(clients))
    start = index * size + min(index, larger)
    return queues[start : start + size + (index < larger)]


def by_circle(client_id: str, queues: list[BrokerQueue], clients: list[str]) -> list[BrokerQueue]:
    """``AVG_BY_CIRCLE``: one queue after the other round the clients."""
    if client_id not in clients:
        return []
    return queues[clients.index(client_id) :: len(clients)]


STRATEGIES: Final = {"AVG": averagely, "AVG_BY_CIRCLE": by_circle}
