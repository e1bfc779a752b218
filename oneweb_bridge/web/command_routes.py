"""The routes that change something: each becomes a command like those over MQTT, and waits for its answer."""

import asyncio
import secrets
from collections.abc import Callable
from functools import partial

import msgspec
from aiohttp import web

from oneweb_bridge.encoding import encode
from oneweb_bridge.model.command import Answer, CommandMessage, CommandRefusal
from oneweb_bridge.model.status import Response, Result
from oneweb_bridge.web.access import DATA, Refusal
from oneweb_bridge.web.answers import decode_body, json_response, refuse
from oneweb_bridge.web.data import read_query
from oneweb_bridge.web.payloads import CommandAccepted

VERBS = ("set", "poll")
REQUESTS = ("republish", "replay", "release", "purge")
ANSWER_TIMEOUT_S = 30.0
RETRY_AFTER_S = 5
_STATUSES = {"invalid": 400, "unknown_call": 404, "over_budget": 409, "busy": 409}


class CommandQueue(msgspec.Struct, frozen=True, kw_only=True):
    """The way of commands to their executor. `answer_to` publishes an answer to a command of a topic over MQTT too."""

    base: str
    refusal_of: Callable[[str, bytes], CommandRefusal | None]
    has_room: Callable[[CommandMessage], bool]
    put: Callable[[CommandMessage], None]
    answer_to: Callable[[str], Answer]


class CommandRoutes:
    """Sends commands, and answers with their results."""

    def __init__(self, queue: CommandQueue) -> None:
        self._queue = queue

    def routes(self) -> list[web.RouteDef]:
        """The routes."""
        return [
            *(web.post(f"{DATA}/calls/{{call}}/{verb}", partial(self._send_call_command, verb)) for verb in VERBS),
            *(web.post(f"{DATA}/requests/{name}", partial(self._send_request, name)) for name in REQUESTS),
        ]

    async def _send_call_command(self, verb: str, request: web.Request) -> web.StreamResponse:
        call = request.match_info["call"]
        return await self._send(request, f"{self._queue.base}/bridge/polling/{call}/{verb}")

    async def _send_request(self, name: str, request: web.Request) -> web.StreamResponse:
        return await self._send(request, f"{self._queue.base}/bridge/request/{name}")

    async def _send(self, request: web.Request, topic: str) -> web.StreamResponse:
        read_query(request)
        body = await decode_body(request, dict[str, msgspec.Raw])
        id = _id_of(body) or f"console-{secrets.token_hex(8)}"
        payload = encode({**body, "id": body["id"] if _id_of(body) else id})
        refusal = self._queue.refusal_of(topic, payload)
        if refusal is not None:
            return refuse(Refusal(_STATUSES[refusal.reason], refusal.error))
        answered: asyncio.Future[Result | Response] = asyncio.get_running_loop().create_future()
        message = CommandMessage(
            topic, payload, retain=False, answer=_answer_both(self._queue.answer_to(topic), answered), source="console"
        )
        if not self._queue.has_room(message):
            return refuse(Refusal(503, "too many commands wait: try again", RETRY_AFTER_S))
        self._queue.put(message)
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                return json_response(await answered)
        except TimeoutError:
            return json_response(CommandAccepted(id=id), 202)


def _id_of(body: dict[str, msgspec.Raw]) -> str | None:
    """The id that the sender gave; one that is no text is refused later, with all else that is wrong."""
    raw = bytes(body.get("id", b"null"))
    return None if raw == b"null" else str(msgspec.json.decode(raw))


def _answer_both(publish: Answer, answered: asyncio.Future[Result | Response]) -> Answer:
    """Publishes each answer over MQTT, and gives the last one to the request that waits."""

    def answer(result: Result | Response) -> None:
        publish(result)
        is_last = isinstance(result, Response) or result.note is None
        if is_last and not answered.done():
            answered.set_result(result)

    return answer
