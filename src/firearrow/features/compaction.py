"""Compaction topics: attribute ``cleanup.policy=COMPACTION``, set when a topic is made.

Each message needs KEYS (``broker/send_checks.py`` refuses it otherwise); of each key and queue the
newest message stays, however old it is, unless its body is empty. The store does the work.
"""

from __future__ import annotations

from firearrow.broker.rooms import BaseRoom
from firearrow.broker.topics import Topics
from firearrow.store.compactionapi import CompactedTopics


class CompactionRoom(BaseRoom):
    """Tells the store which topics they are."""

    def __init__(self, store: CompactedTopics, topics: Topics) -> None:
        self._store = store
        self._topics = topics
        known = [topic.name for topic in topics.attributed.values() if topic.compacted]
        store.use(known, made_now=False)
        topics.attribute_listeners.append(self._attributes_changed)

    def _attributes_changed(self, name: str) -> None:
        topic = self._topics.attributed.get(name)
        if topic is not None and topic.compacted:
            self._store.use([name], made_now=True)

    def start(self) -> None:
        self._store.start()

    def stop(self) -> None:
        self._store.stop()
