"""One HTTP request to the API, its answer, and what can be read from the answer alone."""

from collections.abc import Iterator, Mapping
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

import msgspec
from multidict import CIMultiDictProxy

from oneweb_bridge.api.errors import BadAnswer
from oneweb_bridge.api.headers import origin, resolve
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.decode.bounds import EARLIEST
from oneweb_bridge.decode.paths import fold_name

MAX_REDIRECTS = 3
_HTML_TYPES = frozenset(("text/html", "application/xhtml+xml"))
_JSON_BEGINS = frozenset((b"[", b"{", b'"', b""))
_MESSAGE_MEMBERS = frozenset(
    [
        *("message", "reason", "error", "description", "detail", "details", "title", "cause", "exception"),
        *("errordescription", "errormessage", "faultstring", "errors", "fault", "moreinfo"),
    ]
)
_MAX_MESSAGE_CHARS = 200
_MAX_MESSAGE_DEPTH = 4


class Answer(msgspec.Struct, frozen=True):
    """A whole answer from `url`, its text in UTF-8. `time` is the API's own clock in ms, where it says it."""

    status: int
    body: bytes
    headers: CIMultiDictProxy[str]
    time: int | None
    url: str = ""
    media_type: str = "application/json"

    def lines(self, name: str) -> list[str]:
        """The values of all lines of a header."""
        return self.headers.getall(name, [])


class Request(msgspec.Struct, frozen=True):
    """One request to the API."""

    method: str
    url: str
    params: Mapping[str, str] | None = None
    body: bytes | None = None


def without_query(url: str) -> str:
    """The address as it stands in errors and logs: neither user nor query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"


def is_web_page(answer: Answer) -> bool:
    """Whether an answer is HTML. Its body counts: some APIs send JSON with the media type of a web page."""
    first_byte = answer.body[:1024].lstrip()[:1]
    return first_byte == b"<" or (answer.media_type in _HTML_TYPES and first_byte not in _JSON_BEGINS)


def redirect_target(answer: Answer, redirects: int) -> str:
    """The address that a redirect leads to. Raises BadAnswer for another server, which would get the credentials."""
    where = without_query(answer.url)
    try:
        target = resolve(answer.url, answer.headers["Location"])
        is_same_server = origin(target) == origin(answer.url)
    except (KeyError, ValueError):
        raise BadAnswer(f"{where} answered with a redirect without a readable address") from None
    if not is_same_server:
        raise BadAnswer(f"{where} answered with a redirect to another place, which is not followed")
    if redirects == MAX_REDIRECTS:
        raise BadAnswer(f"{where} answered with one redirect after the other")
    return target


def describe_refusal(answer: Answer, masks: Masks) -> str:
    """The sentence about an answer that is no success: address, status, and the message in its body."""
    return f"{without_query(answer.url)} answered {answer.status}{message_in(answer.body, masks)}"


def message_in(body: bytes, masks: Masks) -> str:
    """The message of an error body in parentheses: one short line without secrets; "" when the body is not JSON.

    Of several the longest, because the others are mostly the name of the status.
    """
    try:
        decoded = msgspec.json.decode(body[:65536])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    message = max(_messages(decoded, 0), key=len, default="")
    line = " ".join(masks.mask_text(message).split())[:_MAX_MESSAGE_CHARS]
    return f" ({line})" if line else ""


def _messages(body: object, depth: int) -> Iterator[str]:
    """The texts in an error body that are for people."""
    if depth > _MAX_MESSAGE_DEPTH:
        return
    if isinstance(body, list):
        for element in body[:3]:
            yield from _messages(element, depth + 1)
    elif isinstance(body, dict):
        for name, value in body.items():
            if len(name) <= _MAX_MESSAGE_CHARS and fold_name(name) in _MESSAGE_MEMBERS:
                if isinstance(value, str):
                    yield value[:_MAX_MESSAGE_CHARS]
                else:
                    yield from _messages(value, depth + 1)


def parse_date(header: str | None) -> int | None:
    """A Date header in ms since the epoch; None when it is missing, not readable, or before all that is believed."""
    try:
        date = round(parsedate_to_datetime(header).timestamp() * 1000) if header else 0
    except (ValueError, TypeError, OverflowError):
        return None
    return date if date >= EARLIEST else None
