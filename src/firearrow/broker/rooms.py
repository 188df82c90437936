"""What a feature room may do: the one narrow interface between the broker and its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from firearrow.broker.admin.attributes import Attribute
from firearrow.model.message import Message
from firearrow.protocol.remoting.session import Route
from firearrow.store.api import Put


class Guard(Protocol):
    """Stands before everything else that happens to the messages of one topic."""

    def put(self, message: Message, store: Callable[[Message], Put]) -> Put:
        """``store(message)``, or what was stored instead."""

    def put_batch(self, messages: list[Message], store: Callable[[list[Message]], Put]) -> Put:
        """The same for a batch. ``physical_offsets`` has an offset for each of ``messages``."""


class Room(Protocol):
    """A feature. It implements what it needs; ``BaseRoom`` answers the rest."""

    # Names of properties and 0x01, such as b"DELAY\x01": ``before_store`` is called only for
    # messages that have one of them. Other messages pay one look for all rooms together, and most
    # not even that (``tails``): what depends on anything else cannot be decided here.
    @property
    def marks(self) -> tuple[bytes, ...]: ...

    # Whether ``before_store`` is also called for messages of a batch, which it must not change.
    @property
    def in_batches(self) -> bool: ...

    # Attributes of topics that the room understands, so that operators can set them.
    @property
    def topic_attributes(self) -> Mapping[str, Attribute]: ...

    def routes(self) -> Mapping[int, Route]:
        """The request codes that the room answers."""

    def before(self, routes: Mapping[int, Route]) -> Mapping[int, Route]:
        """Request codes of others whose handlers the room stands before: it answers, or asks the
        one in ``routes``. Not for sends and pulls, which would pay for it each time."""

    def before_store(self, message: Message) -> Message | Put:
        """The message to store (the same, or a rewritten one), or why it is refused."""

    def start(self) -> None: ...

    def dismiss(self) -> None:
        """Answer who waits: connections are closed next."""

    def stop(self) -> None:
        """Save what must survive."""


class BaseRoom:
    """A room that does nothing."""

    marks: tuple[bytes, ...] = ()
    in_batches: bool = False
    topic_attributes: Mapping[str, Attribute] = {}

    def routes(self) -> Mapping[int, Route]:
        return {}

    def before(self, routes: Mapping[int, Route]) -> Mapping[int, Route]:
        return {}

    def before_store(self, message: Message) -> Message | Put:
        return message

    def start(self) -> None: ...

    def dismiss(self) -> None: ...

    def stop(self) -> None: ...
