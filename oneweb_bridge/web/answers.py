"""Bodies of requests and answers: JSON to structs and back, and refusals in one sentence."""

from typing import TypeVar

import msgspec
from aiohttp import web

from oneweb_bridge.encoding import encode
from oneweb_bridge.web.access import Refusal
from oneweb_bridge.web.payloads import ErrorAnswer

Body = TypeVar("Body")
COMPRESS_FROM_BYTES = 4096


class BadRequest(Exception):
    """The sentence for a request whose path, query or body is not what was expected."""


async def decode_body(request: web.Request, form: type[Body]) -> Body:
    """The body of a request as a struct; an empty one as an empty object. Raises BadRequest."""
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest(f"body: {error}") from None


def json_response(value: object, status: int = 200) -> web.Response:
    """A value as JSON."""
    return json_bytes_response(encode(value), status)


def json_bytes_response(body: bytes, status: int = 200) -> web.Response:
    """JSON that is encoded; where it is long and the client takes that, it is compressed in a thread of its own."""
    response = web.Response(
        body=body, status=status, content_type="application/json", zlib_executor_size=COMPRESS_FROM_BYTES
    )
    if len(body) > COMPRESS_FROM_BYTES:
        response.enable_compression()
    return response


def refuse(refusal: Refusal) -> web.Response:
    """A refusal as it is sent: its status and its sentence."""
    response = json_response(ErrorAnswer(refusal.error), refusal.status)
    if refusal.retry_after_s is not None:
        response.headers["Retry-After"] = str(refusal.retry_after_s)
    return response
