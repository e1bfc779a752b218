"""A folder with what an API answered to `explore`, without ids, names, positions and secrets, and how it is played.

Beside one sample of each call for people, `explore.json` has every request that was sent and its answer, so that the
same exploration can be made without a network.
"""

import contextlib
import errno
import os
import stat
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from oneweb_bridge import __version__
from oneweb_bridge.api.answers import Answer, Request, parse_date
from oneweb_bridge.api.client import HttpSession, open_session
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.schema import Api as ApiSettings
from oneweb_bridge.explore.client import Exchange, ExploreApi
from oneweb_bridge.explore.evidence import find_list
from oneweb_bridge.explore.redaction import BASE_URL, SAMPLE_RECORDS, Mask, cut_records
from oneweb_bridge.files import refusal_of

VERSION = 1
"""Of the form of `explore.json`."""
FILE = "explore.json"
MAX_RECORDS = 50
"""Records of one answer that are saved: more would tell no more, and make the folder large."""


class RecordingError(Exception):
    """The folder is no recording; the text is one sentence for the user."""


class SavedExchange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request and its answer. `body` is JSON, else `text`; `is_cut` where records were left out."""

    method: str
    path: str
    params: dict[str, str] = {}
    auth: str = ""
    status: int
    headers: list[tuple[str, str]] = []
    body: Any = None
    text: str | None = None
    is_cut: bool = False


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """All exchanges of one exploration. `now` is the API's clock in ms."""

    version: int
    program: str
    now: int
    exchanges: list[SavedExchange]


# ── saving ─────────────────────────────────────────────────────────────────────────────────────


class Explored(msgspec.Struct, frozen=True):
    """What is to be saved: exchanges, an answer of each call, the address of the API, and its clock in ms."""

    exchanges: list[Exchange]
    samples: Mapping[str, Any]
    base_url: str
    now: int


def save(directory: Path, explored: Explored, masks: Masks) -> int:
    """Writes a folder: a sample of each call, and the recording. Returns how many samples there are. Raises OSError."""
    # Pythons differ in what `exist_ok` makes of a folder that cannot be looked at.
    with contextlib.suppress(FileExistsError):
        directory.mkdir(parents=True)
    if not stat.S_ISDIR(directory.stat().st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    decoded = [(exchange, _decoded(exchange.body)) for exchange in explored.exchanges]
    # The words of whole answers: what is left out of a sample must not come back in it by chance.
    mask = Mask.of([*explored.samples.values(), *(body for _, body in decoded)], base_url=explored.base_url)
    saved = [_saved(exchange, body, mask, explored.base_url) for exchange, body in decoded]
    for call, body in explored.samples.items():
        _write(directory / f"{call}.json", mask.mask_value(cut_records(body, SAMPLE_RECORDS), ""), masks)
    _write(
        directory / FILE,
        Recording(version=VERSION, program=__version__, now=explored.now, exchanges=saved),
        masks,
    )
    return len(explored.samples)


def _write(path: Path, value: Any, masks: Masks) -> None:
    path.write_bytes(masks.mask_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1) + b"\n"))


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body.removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _saved(exchange: Exchange, body: Any, mask: Mask, base_url: str) -> SavedExchange:
    path, params = _parts(exchange.url, exchange.params, base_url)
    listed = find_list(body)
    is_cut = listed is not None and len(listed.items) > MAX_RECORDS
    if exchange.status < 400:
        masked = mask.mask_value(cut_records(body, MAX_RECORDS), "")
    else:
        masked = _masked_refusal(body, mask)
    is_json = body is not None or exchange.body.strip() == b"null"
    kept = [
        (n, mask.mask_address(v)) if n.casefold() == "location" else (n, _header(v, mask)) for n, v in exchange.headers
    ]
    return SavedExchange(
        method=exchange.method,
        path=mask.mask_address(path),
        params={name: mask.mask_parameter(value) for name, value in params.items()},
        auth=exchange.auth,
        status=exchange.status,
        headers=kept,
        body=masked,
        text=None if is_json else "<html>" if exchange.body.lstrip()[:1] == b"<" else "",
        is_cut=is_cut,
    )


def _header(line: str, mask: Mask) -> str:
    """A header; the addresses in a Link are those of pages."""
    before, bracket, rest = line.partition("<")
    address, end, after = rest.partition(">")
    return f"{before}<{mask.mask_address(address)}>{_header(after, mask)}" if bracket and end else line


def _masked_refusal(body: Any, mask: Mask, name: str = "") -> Any:
    """The body of a refusal, whose sentences are kept; `name` is the member that a value stands in."""
    if isinstance(body, dict):
        return {member: _masked_refusal(value, mask, member) for member, value in body.items()}
    if isinstance(body, list):
        return [_masked_refusal(value, mask, name) for value in body]
    return mask.mask_message(body) if isinstance(body, str) else mask.mask_value(body, name)


def _parts(url: str, params: Mapping[str, str], base_url: str) -> tuple[str, dict[str, str]]:
    """The path below the API's address, and all parameters, also those that the address itself has."""
    path, _, query = url.removeprefix(base_url).partition("?")
    return path, {**dict(parse_qsl(query, keep_blank_values=True)), **params}


# ── playing ────────────────────────────────────────────────────────────────────────────────────


def load(directory: Path) -> Recording:
    """The recording in a folder. Raises RecordingError."""
    path = directory / FILE
    advice = "name a folder that `explore --save` wrote"
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        raise RecordingError(f"{_reason(directory, error)}: {advice}") from None
    try:
        version = msgspec.json.decode(content, type=_Version).version
        if version != VERSION:
            another = "another version of oneweb-bridge"
            raise RecordingError(f"{path} was written by {another} (form {version}, not {VERSION}): save it again")
        return msgspec.json.decode(content, type=Recording)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RecordingError(f"{path} is cut off or is no recording: save it again, or {advice}") from None


def _reason(directory: Path, error: OSError | ValueError) -> str:
    """Why a folder is no recording, without looking further than what could not be read."""
    if isinstance(error, IsADirectoryError):
        return f"{directory / FILE} is a folder"
    if isinstance(error, FileNotFoundError) and directory.is_dir():
        is_empty = not any(directory.iterdir())
        return f"{directory} is empty" if is_empty else f"{directory} has no {FILE}"
    path = directory / FILE if isinstance(error, PermissionError) else directory
    return f"{path} cannot be read: {refusal_of(error)}"


class _Version(msgspec.Struct):
    version: int


class RecordedApi(ExploreApi):
    """The API as a folder has it: nothing is sent. What was not asked when it was saved is not there: 404."""

    def __init__(self, settings: ApiSettings, session: HttpSession, masks: Masks, recording: Recording) -> None:
        super().__init__(settings, session, masks)
        self._base_url = settings.base_url
        self._frozen = recording.now
        self.is_partial = any(exchange.is_cut for exchange in recording.exchanges)
        self._by_request = defaultdict[Any, list[SavedExchange]](list)
        self._cut_paths = {exchange.path for exchange in recording.exchanges if exchange.is_cut}
        for exchange in recording.exchanges:
            self._by_request[_key(exchange.method, exchange.path, exchange.params)].append(exchange)

    async def _exchange(self, request: Request, headers: dict[str, str], form: dict[str, str] | None = None) -> Answer:
        del headers
        if form is not None:
            return _answer(200, b'{"access_token": "none"}', [], request.url)
        path, params = _parts(request.url, request.params or {}, self._base_url)
        saved = self._by_request.get(_key(request.method, path, params), [])
        own = [exchange for exchange in saved if exchange.auth == self.auth_style]
        exchange = next(iter(own or saved), None)
        if exchange is not None:
            if len(saved) > 1:
                saved.remove(exchange)
            return self._played(exchange, request.url)
        if path in self._cut_paths:
            return _answer(200, b"[]", [], request.url)
        return _answer(404, b'{"message": "the folder has no answer to this request"}', [], request.url)

    def _played(self, exchange: SavedExchange, url: str) -> Answer:
        body = msgspec.json.encode(exchange.body) if exchange.text is None else exchange.text.encode()
        body = body.replace(BASE_URL.encode(), self._base_url.encode())
        lines = [
            (name, line.replace(BASE_URL, self._base_url))
            for name, line in exchange.headers
            if not (exchange.path in self._cut_paths and "total" in name.casefold())
        ]
        answer = _answer(exchange.status, body, lines, url)
        self._note_challenges(answer)
        return answer


def _key(method: str, path: str, params: Mapping[str, str]) -> Any:
    return method, urlsplit(path).path, tuple(sorted(params.items()))


def _answer(status: int, body: bytes, lines: list[tuple[str, str]], url: str) -> Answer:
    headers = CIMultiDict(lines)
    return Answer(status, body, CIMultiDictProxy(headers), parse_date(headers.get("Date")), url)


@contextlib.asynccontextmanager
async def open_recorded_api(settings: ApiSettings, masks: Masks, recording: Recording) -> AsyncIterator[ExploreApi]:
    """A recording in the place of the API."""
    async with open_session() as session:
        yield RecordedApi(settings, session, masks, recording)
