"""Decides by the broker's head which bridge publishes below a base topic. Pure.

The head names a journal and an instance. It is this bridge's own when the instance is the configured one, or when
the journal is this database's and it has published there under that name before.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from oneweb_bridge.model.records import FormerJournalIds


class Place(msgspec.Struct, frozen=True, array_like=True):
    """A base topic, and the instance under whose name this database was published below it."""

    base: str
    instance: str


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of a database: its journal's ids, and the base topics and names under which it was published."""

    journal_id: str = ""
    earlier: FormerJournalIds = ()
    places: tuple[Place, ...] = ()

    def knows(self, journal: object) -> bool:
        """Whether a journal's id is or was this database's."""
        return journal == self.journal_id or any(journal == id for id, _ in self.earlier)

    def old_bases(self, base: str) -> list[str]:
        """The base topics below which it was published, other than `base`."""
        return list(dict.fromkeys(place.base for place in self.places if place.base != base))


Head = Mapping[str, Any]
"""The payload of a head: a JSON object."""


def read_head(payload: bytes) -> Head | None:
    """The head in a payload; None when it has no JSON object."""
    try:
        head = msgspec.json.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return _with_bounds(head) if isinstance(head, dict) else None


def _with_bounds(head: Head) -> Head:
    """The used members: texts, and a row's number that fits into SQLite."""
    texts = {name: head[name] for name in ("journal", "instance") if head.get(name) is not None}
    seq = head.get("seq")
    return {
        **{name: text if isinstance(text, str) else NO_TEXT for name, text in texts.items()},
        "seq": seq if type(seq) is int and 0 <= seq < 2**63 else None,
    }


NO_TEXT = "(no text)"
"""Replaces anything but a text; no instance can have this name."""


def owner_of(head: Head | None, here: Place, identity: Identity) -> Literal["nobody", "this", "another"]:
    """Which bridge publishes at `here`, for the database with `identity`."""
    if head is None or (head.get("instance") is None and not identity.knows(head.get("journal"))):
        return "nobody"
    return "this" if head.get("instance") == here.instance or is_former(head, here.base, identity) else "another"


def is_former(head: Head, base: str, identity: Identity) -> bool:
    """Whether this database itself published the head, also under a former name."""
    before = Place(base, str(head.get("instance")))
    return identity.knows(head.get("journal")) and before in identity.places


def foreign_sentence(head: Head, topic: str, here: Place) -> str:
    """The error about a base topic that another bridge uses."""
    return (
        f"{topic} belongs to the bridge instance {str(head.get('instance'))[:64]!r}, this one is "
        f"{here.instance!r}: give this one its own mqtt.base_topic, or clear that topic if the other is gone"
    )


def online_sentence(instance: str, here: Place) -> str:
    """The error about a base topic below which the bridge `instance` is online."""
    return (
        f"the bridge instance {instance[:64]!r} is online below {here.base!r}, this one is {here.instance!r}: "
        "give this one its own mqtt.base_topic"
    )
