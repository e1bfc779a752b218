"""Keeps the messages of a topic, and those of a row, in their order. Pure, and not shared."""

from collections import deque
from collections.abc import Iterable
from heapq import heappush

from oneweb_bridge.mqtt.lane import Outgoing, Ready, ready


class TopicFence:
    """Of each topic one message is ready at a time, until it is behind the durable cursor.

    Rows on a topic of `withheld` are not ready before they are let go.
    """

    def __init__(self, withheld: Iterable[str]) -> None:
        self.withheld = set(withheld)
        self.unjournaled: list[Ready] = []
        """The messages without a row that may go."""
        self._waiting: dict[str, deque[Outgoing]] = {}

    def enqueue(self, outgoing: Outgoing) -> None:
        """Takes a message behind those of its topic."""
        topic = outgoing.message.topic
        if topic in self._waiting:
            self._waiting[topic].append(outgoing)
        else:
            self._waiting[topic] = deque()
            outgoing.first_in_topic = True
            self._make_ready(outgoing)

    def free_topic(self, outgoing: Outgoing) -> None:
        """The message is done with: the next one of its topic may go."""
        queue = self._waiting[outgoing.message.topic]
        if queue:
            following = queue.popleft()
            following.first_in_topic = True
            self._make_ready(following)
        else:
            del self._waiting[outgoing.message.topic]

    def let_next_go(self, outgoing: Outgoing) -> None:
        """Lets what follows in the row go: this one has gone before it, or waits in a lane."""
        following = outgoing.next_in_row
        if following is not None and not following.predecessor_sent:
            following.predecessor_sent = True
            self._make_ready(following)

    def _make_ready(self, outgoing: Outgoing) -> None:
        """A message may go when it is the first of its topic and those before it in its row have gone."""
        if not outgoing.predecessor_sent or not outgoing.first_in_topic:
            return
        if outgoing.lane is not None and outgoing.message.topic in self.withheld:
            outgoing.lane.paused.add(outgoing)
        else:
            heap = self.unjournaled if outgoing.lane is None else outgoing.lane.ready
            heappush(heap, ready(outgoing))
