"""The fetch step of a call: which requests make its listing, and the records page by page.

A step is a function from `Errand` to pages; `STEPS` names them, and `polling.<call>.fetch` chooses.
A new way of asking is one more step, and nothing else changes.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from urllib.parse import quote

import msgspec

from oneweb_bridge import paging, wire
from oneweb_bridge.api import Answer, Api, BadAnswer
from oneweb_bridge.catalogue import Call
from oneweb_bridge.diff import Salt


class Item(msgspec.Struct, frozen=True, gc=False):
    """One undecoded record with its key and the hash of its bytes."""

    id: str
    hash: bytes
    raw: msgspec.Raw


class Listed(msgspec.Struct, frozen=True):
    """One page of a listing. `time` is the API's clock in ms when it answered."""

    items: list[Item]
    unreadable: int
    time: int | None
    unpaged: bool = False


class Errand(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be fetched: a call, the parameters of its window, and the ids it is asked for one by one."""

    call: Call
    key: Callable[[msgspec.Raw], str]
    salt: Salt
    params: Mapping[str, str] = {}
    for_each: tuple[str, ...] | None = None


Step = Callable[[Api, Errand], AsyncGenerator[Listed, None]]


async def get(api: Api, errand: Errand) -> AsyncGenerator[Listed, None]:
    """Plain GETs: the call's path once, or once for each id. Raises ApiError, and BadAnswer when incomplete."""
    call = errand.call
    paths = [call.path]
    if errand.for_each is not None:
        paths = [_path_for(call.path, id) for id in errand.for_each]
    for path in paths:
        async with contextlib.aclosing(_pages(api, errand, path)) as pages:
            async for page in pages:
                yield page


def _path_for(path: str, id: str) -> str:
    place = quote(id, safe="")
    return path.replace("{ut_id}", place).replace("{product_id}", place)


async def request(api: Api, errand: Errand) -> AsyncGenerator[Listed, None]:
    """A report that has to be requested: POST the wish, ask until it is ready, then read it like any listing."""
    wish = msgspec.json.encode({**errand.call.query, **errand.params})
    answer = await api.request("POST", errand.call.path, body=wish)
    place = answer.headers.get("Location") or _place(answer, errand.call)
    for _ in range(_PATIENCE):
        ready = await api.get(place)
        if ready.status != 202 and not _still_working(ready):
            yield await asyncio.to_thread(_listed, ready, errand)
            return
        await asyncio.sleep(_BETWEEN)
    raise BadAnswer(f"{errand.call.path}: the requested report was not ready after {_PATIENCE} looks")


_PATIENCE, _BETWEEN = 60, 2.0

STEPS: dict[str, Step] = {"get": get, "request": request}


def _place(answer: Answer, call: Call) -> str:
    id = wire.member(answer.body, "id")
    if not isinstance(id, (str, int)):
        raise BadAnswer(f"{call.path}: the requested report has neither a Location header nor an id", answer.body)
    return f"{call.path}/{quote(str(id), safe='')}"


def _still_working(answer: Answer) -> bool:
    state = wire.member(answer.body, "status")
    return isinstance(state, str) and state.casefold() in ("pending", "inprogress", "acknowledged", "running")


async def _pages(api: Api, errand: Errand, path: str) -> AsyncGenerator[Listed, None]:
    listing = paging.Paging(errand.call.page, path)
    while (ask := listing.ask) is not None:
        answer = await api.get(ask.url or path, {} if ask.url else {**errand.call.query, **errand.params, **ask.params})
        page, count = await asyncio.to_thread(_counted, answer, errand)
        try:
            used = listing.took(_got(answer, errand.call, page, count))
        except paging.Incomplete as error:
            raise BadAnswer(f"{path}: the listing is not complete: {error}", answer.body) from None
        if used:
            yield msgspec.structs.replace(page, unpaged=listing.unpaged)
        elif listing.unpaged:
            yield msgspec.structs.replace(page, items=[], unpaged=True)


def _got(answer: Answer, call: Call, page: Listed, count: int) -> paging.Got:
    cursor = wire.member(answer.body, call.page.cursor_path) if call.page.style == "cursor" else None
    return paging.Got(
        count=count,
        ids=list(dict.fromkeys(item.id for item in page.items)),
        total=paging.total_of(answer.headers.get(call.page.total_header)),
        next_link=paging.next_link(answer.headers.get("Link")),
        next_cursor=cursor if isinstance(cursor, str) else None,
    )


def _listed(answer: Answer, errand: Errand) -> Listed:
    return _counted(answer, errand)[0]


def _counted(answer: Answer, errand: Errand) -> tuple[Listed, int]:
    call = errand.call
    try:
        page = wire.split(answer.body, call.records)
        records = wire.exploded(call, page.records)
    except wire.BadPage as error:
        raise BadAnswer(f"{call.path}: {error}", answer.body) from None
    items, unreadable = [], 0
    for raw in records:
        try:
            items.append(Item(errand.key(raw), errand.salt.hash(raw), raw))
        except wire.Unreadable:
            unreadable += 1
    if unreadable and not items:
        raise BadAnswer(
            f"{call.path}: none of {unreadable} records has a readable {' and '.join(call.key)}", answer.body
        )
    return Listed(items, unreadable, answer.time), page.count
