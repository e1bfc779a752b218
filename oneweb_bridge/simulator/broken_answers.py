"""Broken answers: the bodies of faults that replace one, and the ways to spoil or cut one on its way."""

import asyncio
import gzip
import io
from email.utils import parsedate_to_datetime

from aiohttp import web

from .clock import http_date
from .faults import Fault

_LOGIN_PAGE = b"<!DOCTYPE html><html><head><title>Sign in</title></head><body><form>Please sign in</form></body></html>"
_ERRORS = {
    500: "Internal server error",
    502: "Bad gateway",
    503: "Service unavailable",
    504: "Gateway timeout",
}
_MEGABYTE = 1_000_000


def replacement(fault: Fault, path: str) -> tuple[int, bytes, dict[str, str]]:  # noqa: PLR0911  # a table
    """Status, body and headers of an answer that has nothing to do with the story."""
    headers = {"Content-Type": "application/json"}
    match fault.kind:
        case "status":
            text = fault.body if fault.body is not None else f'{{"message": "{_ERRORS.get(fault.status, "Failed")}"}}'
            return fault.status, text.encode(), {**headers, **fault.headers}
        case "html":
            return 200, _LOGIN_PAGE, {"Content-Type": "text/html;charset=utf-8"}
        case "redirect":
            status = fault.status if 300 <= fault.status < 400 else 302
            return status, b"", {"Location": f"http://{fault.host}{path}"}
        case "empty_list":
            return 200, b"[]", {**headers, "X-Total-Count": "0", "X-Result-Count": "0"}
        case "gzip_bomb":
            return 200, _bomb(int(fault.megabytes * _MEGABYTE)), {**headers, "Content-Encoding": "gzip"}
        case "big":
            return 200, _big(int(fault.megabytes * _MEGABYTE)), headers
        case "nan":
            return 200, b'[{"id": "359235170000000", "value": NaN, "other": Infinity}]', headers
        case "deep":
            return 200, b"[" * fault.depth + b"]" * fault.depth, headers
        case kind:
            return 200, {"empty_body": b"", "null": b"null", "object": b"{}"}[kind], headers


def spoiled(fault: Fault, body: bytes, headers: dict[str, str]) -> tuple[bytes, dict[str, str]]:
    """A true body with something wrong in it."""
    match fault.kind:
        case "truncated":
            return body[: fault.bytes], headers
        case "not_utf8":
            return body.replace(b'"', b'"\xff\xfe', 1), headers
        case "bom":
            return b"\xef\xbb\xbf" + body, headers
        case "content_type":
            return body, {**headers, "Content-Type": fault.value}
        case "date":
            right = parsedate_to_datetime(headers["Date"]).timestamp()
            return body, {**headers, "Date": http_date(right + fault.seconds)}
        case _:
            return body, headers


async def send_cut(
    request: web.Request, fault: Fault, status: int, body: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    """The first bytes of the body, then the connection closes."""
    transport = request.transport
    if transport is None:
        return web.Response(status=500)
    framing = {
        "content": f"Content-Length: {len(body)}",
        "chunked": "Transfer-Encoding: chunked",
        "none": "Connection: close",
    }
    lines = [
        f"HTTP/1.1 {status} OK",
        *(f"{name}: {value}" for name, value in headers.items()),
        framing[fault.length],
    ]
    part = body[: fault.bytes]
    if fault.length == "chunked":
        part = f"{len(part):x}\r\n".encode() + part + b"\r\n"
    # Written past aiohttp, which would never end a body early by itself.
    transport.write("\r\n".join([*lines, "", ""]).encode("latin-1") + part)
    transport.close()
    return web.Response(status=status)


async def send_slowly(
    request: web.Request, fault: Fault, status: int, body: bytes, headers: dict[str, str]
) -> web.StreamResponse:
    """The whole body, ten small pieces a second."""
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = len(body)
    await response.prepare(request)
    piece = max(1, int(fault.rate / 10))
    for begin in range(0, len(body), piece):
        await response.write(body[begin : begin + piece])
        await asyncio.sleep(0.1)
    return response


def _big(size: int) -> bytes:
    """Valid JSON of about that size: an array of objects."""
    record = b'{"id":"' + b"9" * 80 + b'"},'
    return b"[" + (record * (size // len(record) + 1))[:-1] + b"]"


def _bomb(size: int) -> bytes:
    """A small body that unfolds to one of that size, made without holding the large one."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9, mtime=0) as file:
        file.write(b"[")
        for _ in range(size // _MEGABYTE + 1):
            file.write(b" " * _MEGABYTE)
        file.write(b"]")
    return packed.getvalue()
