"""Open tabs of the console without a browser: what the page asks for, a live stream, and the fleet now and then.

They cost so little that they can be in the process that measures. Each asks for the whole fleet every 20 s, as a page
does at most.
"""

import asyncio
import contextlib
import gzip
import re
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence

import aiohttp

from tests.cancelling import end_tasks

TABS = 8
FIRST = ("session", "bridge", "calls", "events?limit=1")
"""What the first page asks for besides the fleet."""
RELOAD_S = 20.0
RETRY_S = 2.0
OPEN_TIMEOUT_S = 60.0
SILENCE_S = 40.0
_EVENT = re.compile(rb'event: event\nid: [^\n]*\ndata: [^\n]*?"subject":"(\d{15})"')
_SEQ = re.compile(rb'"seq":"([^"]+)"')
Arrivals = list[tuple[str, float]]
"""Terminals, and when an event of each came, in seconds of `time.perf_counter`."""


def complete_messages(text: bytes) -> tuple[bytes, bytes]:
    """The messages of a stream that are all there, and what is left."""
    end = text.rfind(b"\n\n") + 2
    return (text[:end], text[end:]) if end > 1 else (b"", text)


def last_id(messages: bytes) -> str | None:
    """The id of the last message that has one."""
    at = messages.rfind(b"\nid: ")
    return None if at < 0 else messages[at + 5 : messages.index(b"\n", at + 5)].decode()


def delays(first: Sequence[tuple[str, float]], second: Sequence[tuple[str, float]]) -> list[float]:
    """By how many ms each event came later in `second` than in `first`; those of a terminal come in the same order."""
    waiting: dict[str, deque[float]] = defaultdict(deque)
    for imei, at in first:
        waiting[imei].append(at)
    return [1000 * (at - waiting[imei].popleft()) for imei, at in second if waiting[imei]]


class Tab:
    """One tab. `events` are those that came, where it is `noting` them; `streams` and `fleets` how often it asked."""

    def __init__(self, http: aiohttp.ClientSession, url: str, *, noting: bool) -> None:
        self.events: Arrivals = []
        self.streams = self.fleets = self.bytes = 0
        self.is_live = asyncio.Event()
        self._http = http
        self._url = f"{url}api/v1/"
        self._noting = noting
        self._last = ""

    async def run(self) -> None:
        """Opens the page, and stays. Never returns."""
        for path in FIRST:
            await self._get(path)
        await self._get_fleet()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stream_loop())
            group.create_task(self._reload_loop())

    async def _get(self, path: str) -> bytes:
        async with self._http.get(self._url + path) as answer:
            body = await answer.read()
            answer.raise_for_status()
            return body

    async def _get_fleet(self) -> None:
        body = await self._get("fleet")
        self.fleets += 1
        if not self._last:
            seq = _SEQ.search(gzip.decompress(body))
            assert seq is not None
            self._last = seq[1].decode()

    async def _reload_loop(self) -> None:
        while True:
            await asyncio.sleep(RELOAD_S)
            await self._get_fleet()

    async def _stream_loop(self) -> None:
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._listen()
            await asyncio.sleep(RETRY_S)

    async def _listen(self) -> None:
        left = b""
        async with self._http.get(f"{self._url}live", params={"since": self._last}) as answer:
            answer.raise_for_status()
            self.streams += 1
            self.is_live.set()
            async for chunk in answer.content.iter_any():
                self.bytes += len(chunk)
                messages, left = complete_messages(left + chunk)
                await self._take(messages, time.perf_counter())

    async def _take(self, messages: bytes, now: float) -> None:
        self._last = last_id(messages) or self._last
        if self._noting:
            self.events += [(match[1].decode(), now) for match in _EVENT.finditer(messages)]
        if b"event: reset\n" in messages:
            await self._get_fleet()


@contextlib.asynccontextmanager
async def open_tabs(url: str, count: int = TABS) -> AsyncIterator[list[Tab]]:
    """So many tabs whose streams are open; the first notes events. Raises TimeoutError, and what ended a tab."""
    timeout = aiohttp.ClientTimeout(total=None, sock_read=SILENCE_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(auto_decompress=False, timeout=timeout, connector=connector) as http:
        tabs = [Tab(http, url, noting=number == 0) for number in range(count)]
        tasks = [asyncio.create_task(tab.run(), name="tab") for tab in tabs]
        try:
            async with asyncio.timeout(OPEN_TIMEOUT_S):
                for tab in tabs:
                    await tab.is_live.wait()
            yield tabs
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            await end_tasks(*tasks)
