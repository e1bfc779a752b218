"""Keeps the messages of a topic, and those of a row, in their order. Pure, and not shared."""

from collections.abc import Iterable
from heapq import heappush

from oneweb_bridge.mqtt.lane import HeapEntry, Outgoing, heap_entry


class TopicFence:
    """Of each topic one message is ready at a time, until the saved cursor has passed it.

    Rows on a topic of `withheld` are not ready before they are let go.
    """

    def __init__(self, withheld: Iterable[str]) -> None:
        self.withheld = set(withheld)
        self.unjournaled: list[HeapEntry] = []
        """The messages without a row that may go."""
        self._queues: dict[str, list[Outgoing]] = {}
        """Of each topic the message that holds it, and those that wait behind it."""
        self._awaited: dict[str, Outgoing] = {}
        """By topic, the finished message behind which another waits until the saved cursor has passed it."""

    def enqueue(self, outgoing: Outgoing) -> None:
        """Takes a message behind those of its topic."""
        topic = outgoing.message.topic
        queue = self._queues.get(topic)
        if queue is None:
            self._queues[topic] = [outgoing]
            outgoing.first_in_topic = True
            self._make_ready(outgoing)
            return
        queue.append(outgoing)
        if queue[0].is_finished:
            self._awaited[topic] = queue[0]

    def finish(self, outgoing: Outgoing) -> None:
        """The message was acknowledged or set aside: its topic waits for the cursor alone."""
        outgoing.is_finished = True
        if len(self._queues[outgoing.message.topic]) > 1:
            self._awaited[outgoing.message.topic] = outgoing

    def free_topic(self, outgoing: Outgoing) -> None:
        """The message is done with: the next one of its topic may go."""
        topic = outgoing.message.topic
        queue = self._queues[topic]
        del queue[0]
        self._awaited.pop(topic, None)
        if queue:
            queue[0].first_in_topic = True
            self._make_ready(queue[0])
        else:
            del self._queues[topic]

    def is_cursor_awaited(self) -> bool:
        """Whether a topic has a next message that may go as soon as the cursor is saved."""
        return any(o.lane is not None and o.seq <= o.lane.finished_seq for o in self._awaited.values())

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
            heappush(heap, heap_entry(outgoing))
