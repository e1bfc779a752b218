"""Prints the messages of the journal, with a cursor of its own: as lines for people, or as JSON."""

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
    """Writes every message of the journal and of the rows that follow. Never returns."""
    published_seq = await journal.cursor()
    with growth.subscribe() as journal_grew:
        while True:
            journal_grew.clear()
            rows = await journal.after(published_seq)
            for row in rows:
                for message in tree.messages_of_row(row):
                    write(message)
                published_seq = row.seq
            if rows:
                await journal.advance(published_seq)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(5.0):
                        await journal_grew.wait()


def json_line(message: Message) -> str:
    """A message as one line of JSON."""
    payload = msgspec.Raw(message.payload or b"null")
    return encode({"topic": message.topic, "retain": message.retain, "payload": payload}).decode()


def short_line(message: Message, width: int = 150) -> str:
    """A message as a line for people: topic, then the beginning of the payload."""
    sign = "●" if message.retain else "→"
    line = f"{sign} {message.topic} {message.payload.decode() or '(cleared)'}"
    return line if len(line) <= width else line[: width - 1] + "…"


class ThrottledPrinter:
    """Prints lines for people, at most `max_lines` a second; the rest is counted."""

    def __init__(self, out: TextIO = sys.stdout, max_lines: int = 40) -> None:
        self._out = out
        self._max_lines = max_lines
        self._printed = 0
        self._second = 0.0
        self._skipped = 0

    def write(self, message: Message) -> None:
        """Prints a message, or counts it when this second has `max_lines` already."""
        now = asyncio.get_running_loop().time()
        if now - self._second >= 1.0:
            if self._skipped:
                print(f"  … and {self._skipped} more", file=self._out, flush=True)
            self._second, self._printed, self._skipped = now, 0, 0
        if self._printed < self._max_lines:
            self._printed += 1
            print(short_line(message), file=self._out, flush=True)
        else:
            self._skipped += 1
