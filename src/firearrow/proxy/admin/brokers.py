"""Operators' questions to brokers: one request to several of them, and the answers merged."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from firearrow.codec import lenient_json
from firearrow.model import codes, names
from firearrow.protocol.remoting.headers import Header
from firearrow.proxy.backend import Backend, BrokerTopic, Channel, missing
from firearrow.proxy.refusal import Refusal, of_remoting

CALL_S: Final = 5.0
OPERATOR: Final = ("127.0.0.1", 0)
CONSUMER_CONNECTIONS: Final = 203
GROUPS_OF_TOPIC: Final = 300
TOPICS_OF_GROUP: Final = 343

Answers = dict[str, tuple[Header | None, bytes]]
Table = dict[str, Any]


class Brokers:
    """Asks brokers in the proxy's own name."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._channel: Channel | None = None

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def ask(
        self, broker_name: str, code: int, ext: dict[str, str], done: Callable[..., None]
    ) -> None:
        """One broker; ``done(header or None, body)``."""
        if self._channel is None:
            self._channel = self._backend.connect(OPERATOR, {})
        self._channel.call(broker_name, code, ext, b"", CALL_S, done)

    def ask_all(
        self,
        brokers: Iterable[str],
        code: int,
        ext: dict[str, str],
        done: Callable[[Answers], None],
    ) -> None:
        """Several brokers; ``done`` when all have answered, or do not."""
        wanted, answers = sorted(brokers), Answers()
        if not wanted:
            done(answers)
            return

        def answered(name: str, header: Header | None, body: bytes) -> None:
            answers[name] = (header, body)
            if len(answers) == len(wanted):
                done(answers)

        for name in wanted:
            self.ask(name, code, ext, lambda h, b, name=name: answered(name, h, b))

    def of_group(self, group: str, done: Callable[[Iterable[str]], None]) -> None:
        """The brokers that know a group: those of its retry topic. Groups that only pop have none,
        and the name servers hear of a new one a little later; then it may be any broker."""

        def found(brokers: set[str]) -> None:
            if brokers:
                done(brokers)
            else:
                self._backend.all_brokers(done)

        self._backend.brokers_of([names.RETRY_PREFIX + group], found)

    def places(self, topic: str, found: Callable[[list[BrokerTopic]], None]) -> None:
        """Where a topic lies.

        Raises:
            Refusal: nowhere; from the callback, so it must be caught there.
        """
        self._backend.topic(topic, found)

    # -- what several questions need

    def online(self, group: str, done: Callable[[Table], None]) -> None:
        """``ConsumerConnection`` of a group over all brokers; empty when nobody is online."""

        def answered(answers: Answers) -> None:
            merged: Table = {}
            clients: dict[str, Any] = {}
            for table in bodies(answers):
                for row in table.get("connectionSet") or []:
                    clients.setdefault(str(row.get("clientId")), row)
                merged = {**table, **merged}
            if merged:
                merged["connectionSet"] = list(clients.values())
            done(merged)

        self.of_group(
            group,
            lambda brokers: self.ask_all(
                brokers, CONSUMER_CONNECTIONS, {"consumerGroup": group}, answered
            ),
        )

    def topics_of(self, group: str, done: Callable[[list[str]], None]) -> None:
        """The topics that a group has consumed, without its retries."""

        def answered(answers: Answers) -> None:
            topics = {
                str(topic) for table in bodies(answers) for topic in table.get("topicList") or []
            }
            done(sorted(t for t in topics if not t.startswith(names.RETRY_PREFIX)))

        self.of_group(
            group,
            lambda brokers: self.ask_all(brokers, TOPICS_OF_GROUP, {"group": group}, answered),
        )

    def groups_of(self, topic: str, done: Callable[[list[str]], None]) -> None:
        """The groups that consume a topic."""

        def found(places: list[BrokerTopic]) -> None:
            brokers = [place.broker_name for place in places]
            self.ask_all(brokers, GROUPS_OF_TOPIC, {"topic": topic}, answered)

        def answered(answers: Answers) -> None:
            groups = {
                str(group) for table in bodies(answers) for group in table.get("groupList") or []
            }
            done(sorted(groups))

        self._backend.topic(topic, found)


def bodies(answers: Answers) -> list[Table]:
    """The tables of those that answered well."""
    found = []
    for header, body in answers.values():
        if header is not None and header.code == codes.SUCCESS and body:
            try:
                table = lenient_json.loads(body)
            except ValueError:
                continue
            if isinstance(table, dict):
                found.append(table)
    return found


def failure(answers: Answers) -> Refusal | None:
    """The first failure among the answers."""
    for header, _ in answers.values():
        if header is None:
            return of_remoting(-1, None)
        if header.code != codes.SUCCESS:
            return of_remoting(header.code, header.remark)
    return None


def where(places: list[BrokerTopic], topic: str) -> list[str]:
    """The brokers of a topic.

    Raises:
        Refusal: there is none.
    """
    if not places:
        raise missing(places, topic)
    return [place.broker_name for place in places]
