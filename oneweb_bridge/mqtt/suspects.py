"""Which message breaks the connection: some brokers end it instead of, or right after, refusing a message. Pure.

A connection that breaks makes suspects of all messages that were not answered. The next connection sends
one message at a time, the oldest first; breaks it too, then the one that was on its way is blamed. So is one
that was refused right before the end. What is blamed waits for a growing pause, and everything else goes on.
"""

from collections.abc import Sequence

import msgspec

from oneweb_bridge.model.backoff import nth_pause

FIRST_PAUSE_S = 2.0
MAX_PAUSE_S = 300.0
SEARCH_ANSWERS = 500
"""Answers after which the search for what broke the connection ends: what was under way has come again by then."""
RECENT_S = 1.0
"""Seconds between a refusal and the end of the connection within which the one is taken for the cause of the other."""


class Blame(msgspec.Struct, frozen=True):
    """How many connections a topic has broken one after the other, and until when it waits (monotonic time)."""

    count: int
    until: float


class Suspects:
    """What is known of broken connections, over all of them. Messages are known by their topic."""

    def __init__(self) -> None:
        self.topics: set[str] = set()
        """Those that were not answered when the connection broke: one of them may be the cause."""
        self._left = 0
        self.blamed: dict[str, Blame] = {}
        self.culprit: str | None = None
        """What broke the last connection, where that is known. Whoever looks at it takes it away."""

    def __bool__(self) -> bool:
        """Whether there is anything that an answer could change."""
        return bool(self.topics or self.blamed)

    def on_connection_lost(self, unanswered: Sequence[str], refused: str | None, now: float) -> None:
        """The connection broke with these unanswered, oldest first, and right after `refused` was refused."""
        self.culprit = None
        if not unanswered and refused is None:
            return
        alone = unanswered[0] if self.topics and unanswered else None
        self.culprit = refused or next((topic for topic in unanswered if topic in self.blamed), alone)
        self.topics, self._left = set() if self.culprit else set(unanswered), SEARCH_ANSWERS
        if self.culprit:
            before = self.blamed.get(self.culprit, Blame(0, now))
            pause = nth_pause(FIRST_PAUSE_S, MAX_PAUSE_S, before.count)
            self.blamed[self.culprit] = Blame(before.count + 1, now + pause)

    def on_answered(self, topic: str, *, accepted: bool) -> None:
        """The broker has answered a message, and the connection is still there."""
        self.topics.discard(topic)
        self._left -= 1
        if self._left < 0:
            self.topics.clear()
        if accepted:
            self.blamed.pop(topic, None)

    def counts(self) -> dict[str, int]:
        """How many connections each blamed topic has broken."""
        return {topic: blame.count for topic, blame in self.blamed.items()}

    def waits(self, topic: str, now: float) -> bool:
        """Whether a topic is not to be sent yet."""
        blame = self.blamed.get(topic)
        return blame is not None and now < blame.until
