"""The route of the live stream: server-sent events to one client, as long as it reads them and is signed in."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping

from aiohttp import web

from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.web.access import DATA, Refusal
from oneweb_bridge.web.answers import refuse
from oneweb_bridge.web.data import answers_unavailable, read_query
from oneweb_bridge.web.live import MAX_LISTENERS, LiveStream, TooManyListeners

WRITE_TIMEOUT_S = 30.0
RETRY_AFTER_S = 5


class LiveRoute:
    """Sends the stream. `headers_of` gives the headers of an answer, `is_signed_in` says whether it may go on."""

    def __init__(
        self,
        stream: LiveStream,
        headers_of: Callable[[web.Request], Mapping[str, str]],
        is_signed_in: Callable[[web.Request], bool],
    ) -> None:
        self._stream = stream
        self._headers_of = headers_of
        self._is_signed_in = is_signed_in

    def routes(self) -> list[web.RouteDef]:
        """The route; a HEAD would never end."""
        return [web.get(f"{DATA}/live", answers_unavailable(self._send), allow_head=False)]

    async def _send(self, request: web.Request) -> web.StreamResponse:
        since = request.headers.get("Last-Event-ID") or read_query(request, "since").get("since")
        transport = request.transport
        abort = transport.abort if transport is not None else _nothing
        try:
            async with self._stream.listen(since, abort) as texts:
                response = web.StreamResponse(headers=self._headers(request))
                await response.prepare(request)
                with contextlib.suppress(TimeoutError, ConnectionError, StoreUnavailable):
                    return await self._send_texts(request, response, texts)
                # What has begun cannot become another answer: the client goes on behind the last message.
                abort()
                return response
        except TooManyListeners:
            sentence = f"{MAX_LISTENERS} live streams are open: close one, or wait"
            return refuse(Refusal(503, sentence, RETRY_AFTER_S))

    async def _send_texts(
        self, request: web.Request, response: web.StreamResponse, texts: AsyncIterator[bytes]
    ) -> web.StreamResponse:
        async for text in texts:
            if not self._is_signed_in(request):
                break
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await response.write(text)
        return response

    def _headers(self, request: web.Request) -> dict[str, str]:
        # Proxies must not keep what is to be seen at once.
        return {**self._headers_of(request), "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}


def _nothing() -> None:
    """There is no connection any more."""
