"""What a broker says that it holds."""

from __future__ import annotations

from collections.abc import Iterable

from interop.remoting import Remote

GET_ALL_TOPIC_CONFIG = 21
GET_MAX_OFFSET = 30
SUCCESS = 0


def topics(broker: str) -> set[str]:
    """The names in the broker's topic table; ``broker`` is host:port."""
    with Remote(broker) as remote:
        return set(remote.ask(GET_ALL_TOPIC_CONFIG).json()["topicConfigTable"])


def messages(broker: str, queues: Iterable[tuple[str, int]]) -> list[int]:
    """For each (topic, queue id), how many messages it ever held."""
    with Remote(broker) as remote:
        answers = [
            remote.call(GET_MAX_OFFSET, {"topic": topic, "queueId": queue_id})
            for topic, queue_id in queues
        ]
    return [int(a.ext["offset"]) if a.code == SUCCESS else 0 for a in answers]
