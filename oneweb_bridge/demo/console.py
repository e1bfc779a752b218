"""The journal on a terminal or in a pipe: another reader with a cursor of its own.

It serves where there is no broker: every message that would be published, as one line of JSON.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable
from typing import TextIO

import msgspec

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.store.journal import Journal

OUTPUT = "console"


async def drain(journal: Journal, tree: TopicTree, growth: JournalGrowth, write: Callable[[Message], None]) -> None:
    """Writes every message of the journal, and goes on as it grows. Never returns."""
    at = await journal.cursor()
    with growth.subscribe() as journal_grew:
        while True:
            journal_grew.clear()
            rows = await journal.after(at)
            for row in rows:
                for message in tree.messages_of_row(row):
                    write(message)
                at = row.seq
            if rows:
                await journal.advance(at)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5.0):
                        await journal_grew.wait()


def json_line(message: Message) -> str:
    """A message as one line of JSON."""
    payload = msgspec.Raw(message.payload or b"null")
    return encode({"topic": message.topic, "retain": message.retain, "payload": payload}).decode()


def short_line(message: Message, width: int = 150) -> str:
    """A message as people like to see it go by: topic, then the beginning of the payload."""
    sign = "●" if message.retain else "→"
    line = f"{sign} {message.topic} {message.payload.decode() or '(cleared)'}"
    return line if len(line) <= width else line[: width - 1] + "…"


class ThrottledPrinter:
    """Writes lines for people, and says how many there were instead of showing all in a burst."""

    def __init__(self, out: TextIO = sys.stdout, most: int = 40) -> None:
        self._out = out
        self._most = most
        self._shown = 0
        self._second = 0.0
        self._skipped = 0

    def write(self, message: Message) -> None:
        """Shows a message, unless the second is already full."""
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            if self._skipped:
                print(f"  … and {self._skipped} more", file=self._out, flush=True)
            self._second, self._shown, self._skipped = now, 0, 0
        if self._shown < self._most:
            self._shown += 1
            print(short_line(message), file=self._out, flush=True)
        else:
            self._skipped += 1
