"""The queue between the MQTT connection, or the console, and the executor of commands. It decides nothing."""

import asyncio

from oneweb_bridge.model.command import CommandMessage

MAX_WAITING = 1000
MAX_WAITING_BYTES = 4_000_000


class Inbox:
    """A queue of commands, bounded in number and bytes. A command that does not fit is dropped and counted."""

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: asyncio.Queue[CommandMessage] = asyncio.Queue(MAX_WAITING)
        self._bytes = 0

    def put(self, message: CommandMessage) -> None:
        """Queues a command."""
        if self.has_room(message):
            self._bytes += message.size
            self._queue.put_nowait(message)
        else:
            self.dropped += 1

    def has_room(self, message: CommandMessage) -> bool:
        """Whether a command would be queued."""
        return not self._queue.full() and self._bytes + message.size <= MAX_WAITING_BYTES

    def empty(self) -> bool:
        """Whether nothing waits."""
        return self._queue.empty()

    async def get(self) -> CommandMessage:
        """The next command."""
        message = await self._queue.get()
        self._bytes -= message.size
        return message
