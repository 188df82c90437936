"""Static topics: made and moved by operators in requests 513, one to each broker of the topic.

``mqadmin remappingStaticTopic`` tells the new leader of a queue first, then the old one, which
refuses messages from then on (501), then the new one from which logical offset its messages count.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping as Table
from typing import Protocol

from firearrow.broker.admin.topics import shape_error
from firearrow.broker.broker import Core
from firearrow.broker.rooms import BaseRoom
from firearrow.codec import lenient_json
from firearrow.features.static_topics import mapping, rules
from firearrow.features.static_topics.cleaning import Cleaning, CleaningSettings
from firearrow.features.static_topics.elsewhere import Elsewhere, ForwardSettings
from firearrow.features.static_topics.mapping import Mapping
from firearrow.features.static_topics.offsets import LogicalOffsets
from firearrow.features.static_topics.pulling import Pulling
from firearrow.features.static_topics.rules import MappingRefused
from firearrow.features.static_topics.table import Mappings
from firearrow.model import codes, names
from firearrow.model.topic import Topic
from firearrow.protocol.remoting.command import Answer, Reply, Request
from firearrow.protocol.remoting.requests import REQUESTS, CreateTopic
from firearrow.protocol.remoting.session import Route

log = logging.getLogger(__name__)

UPDATE_AND_CREATE_STATIC_TOPIC = 513


class StaticTopicSettings(ForwardSettings, CleaningSettings, Protocol):
    broker_name: str
    validate_system_topic_when_update_topic: bool


class StaticTopicRoom(BaseRoom):
    """The table of mappings, and who asks it."""

    def __init__(self, settings: StaticTopicSettings, core: Core) -> None:
        self._settings = settings
        self._topics = core.topics
        elsewhere = Elsewhere(settings, core.siblings)
        self._mappings = Mappings(core.store, core.topics, core.clock, Pulling(elsewhere))
        self._mappings.load()
        core.topics.deletion_listeners.append(self._mappings.delete)
        self._offsets = LogicalOffsets(self._mappings, core.store, core.offsets, elsewhere)
        self._cleaning = Cleaning(settings, self._mappings, core.store, elsewhere, core.clock)

    def routes(self) -> Table[int, Route]:
        code = UPDATE_AND_CREATE_STATIC_TOPIC
        return {code: Route(*REQUESTS[code], self.update)}

    def before(self, routes: Table[int, Route]) -> Table[int, Route]:
        return self._offsets.before(routes)

    def start(self) -> None:
        self._cleaning.start()

    def stop(self) -> None:
        self._cleaning.stop()

    def update(self, request: Request[CreateTopic]) -> Answer:
        """UPDATE_AND_CREATE_STATIC_TOPIC (513): the topic's configuration and this broker's
        mapping, both or neither."""
        fields = request.fields
        topic = self._wanted(fields)
        refusal = self._refusal(topic)
        if refusal is not None:
            return Reply(codes.INVALID_PARAMETER, refusal)
        try:
            new = self._accept(fields, request.body)
        except MappingRefused as error:
            log.warning("static topic %s is not changed: %s", fields.topic, error)
            return Reply(codes.SYSTEM_ERROR, str(error))
        log.info("static topic %s: %s", fields.topic, new)
        # In this order: a topic whose mapping a kill has lost would be an ordinary one.
        self._mappings.put(new)
        self._topics.renew(topic)
        return Reply()

    def _wanted(self, fields: CreateTopic) -> Topic:
        """Its attributes stay what they are."""
        existing = self._topics.table.get(fields.topic)
        return Topic(
            name=fields.topic,
            read_queues=fields.read_queues,
            write_queues=fields.write_queues,
            perm=fields.perm,
            filter_type=fields.filter_type,
            sys_flag=fields.sys_flag or 0,
            attributes=existing.attributes if existing else {},
        )

    def _refusal(self, topic: Topic) -> str | None:
        error = names.topic_error(topic.name)
        guarded = self._settings.validate_system_topic_when_update_topic
        if error is None and guarded and self._topics.is_system(topic.name):
            error = f"The topic[{topic.name}] is conflict with system topic."
        return error or shape_error(topic)

    def _accept(self, fields: CreateTopic, body: bytes) -> Mapping:
        """The mapping to keep.

        Raises:
            MappingRefused: unreadable, another topic's or broker's, or against the rules.
        """
        try:
            new = mapping.decode(lenient_json.loads(body))
        except ValueError as error:
            raise MappingRefused(f"unreadable mapping: {error}") from None
        if new.topic != fields.topic:
            raise MappingRefused(f"the mapping is of topic {new.topic}, not {fields.topic}")
        if new.bname != self._settings.broker_name:
            own = self._settings.broker_name
            raise MappingRefused(f"the mapping is for broker {new.bname}, and this is {own}")
        return rules.accept(new, self._mappings.get(new.topic), force=bool(fields.force))
