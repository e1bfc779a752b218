"""Wakes the readers of the journal: each has an event of its own, so that none takes a wake-up from another."""

import asyncio
import contextlib
from collections.abc import Iterator


class JournalGrowth:
    """Tells each reader that rows were appended to the journal by this process."""

    def __init__(self) -> None:
        self._events: set[asyncio.Event] = set()

    @contextlib.contextmanager
    def subscribe(self) -> Iterator[asyncio.Event]:
        """An event that is set after each commit that appends rows. Its reader clears it before it reads."""
        event = asyncio.Event()
        self._events.add(event)
        try:
            yield event
        finally:
            self._events.discard(event)

    def notify(self) -> None:
        """Wakes all readers."""
        for event in self._events:
            event.set()
