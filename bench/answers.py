"""An API whose listing of terminals is what the measure says; it knows when it was asked and when it answered."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from aiohttp import web

from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import mosquitto

PATH = CALLS["user_terminals"].path


class Api:
    """The listing in `pages` of equal length but the last; all else that is asked for is answered as if it were hello.

    `asked_at` is when the listing was first asked for since it was 0, `answered` when the last byte of its newest
    page had been handed to the system, both in seconds of `time.perf_counter`.
    """

    def __init__(self) -> None:
        self.url = ""
        self.asked_at = self.answered = 0.0
        self._pages: list[bytes] = [b"[]"]
        self._records = self._page = 0

    def show(self, pages: Sequence[bytes], records: int, page: int = 0) -> None:
        """What the listing is from now on: `records` in pages of `page`, or all in one."""
        self._pages, self._records, self._page = list(pages), records, page or max(records, 1)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """One page, and the times."""
        if request.path != PATH:
            return web.json_response({"hello": "world"})
        self.asked_at = self.asked_at or time.perf_counter()
        number = int(request.query.get("offset", "0")) // self._page
        body = self._pages[number] if number < len(self._pages) else b"[]"
        headers = {"Content-Type": "application/json", "X-Total-Count": str(self._records)}
        response = web.StreamResponse(headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        # The transport holds back what the socket does not take yet; with no buffer, `drain` waits for the last byte.
        assert request.transport is not None
        request.transport.set_write_buffer_limits(high=0)
        await response.write(body)
        await response.write_eof()
        self.answered = time.perf_counter()
        return response


@contextlib.asynccontextmanager
async def api() -> AsyncIterator[Api]:
    """An API on a free loopback port."""
    made = Api()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", mosquitto.free_port())
        await site.start()
        made.url = site.name
        yield made
    finally:
        async with asyncio.timeout(10):
            await runner.cleanup()
