"""How a listing is cut into pages, and how an answer says where it stands in the listing."""

from typing import Any
from urllib.parse import urlencode

import msgspec

from .answer import Answer, SimulatedRequest, bad_request
from .options import Options


class Page(msgspec.Struct, frozen=True):
    """A stretch of a listing; `limit` None is all of it."""

    offset: int
    limit: int | None

    @property
    def end(self) -> int | None:
        """The place after the last one."""
        return None if self.limit is None else self.offset + self.limit


def requested_page(request: SimulatedRequest, options: Options) -> Page:
    """The page that a request is for. Refused with 400 if it is none."""
    shape = options.shape
    if shape.paging == "none":
        return Page(0, None)
    if shape.paging == "page_size":
        size = min(_number(request, "size", options.default_limit, 1), options.max_limit)
        return Page((_number(request, "page", 1, 1) - 1) * size, size)
    limit = min(_number(request, shape.limit_parameter, options.default_limit, 1), options.max_limit)
    if shape.paging == "offset_limit":
        return Page(_number(request, shape.offset_parameter, 0, 0), limit)
    return Page(_place_of(request.query.get("cursor", "")), limit)


def paged(
    request: SimulatedRequest, options: Options, page: Page, items: list[Any], *, count: int, total: int, has_next: bool
) -> Answer:
    """The answer with one page: envelope, totals, links. `count` objects of the listing are on it."""
    shape = options.shape
    following = page.offset + count
    document: Any = items if shape.envelope == "none" else {shape.envelope: items}
    if shape.paging == "cursor":
        name = "items" if shape.envelope == "none" else shape.envelope
        document = {name: items, "next": _cursor(following) if has_next else None}
    headers = {"Content-Type": "application/json;charset=utf-8"}
    if shape.totals:
        headers |= {"X-Total-Count": str(total), "X-Result-Count": str(len(items))}
    is_part = shape.partial_206 and shape.paging != "none" and count < total
    if shape.paging == "link_next" or is_part:
        headers |= _links(request, options, page, following=following, total=total, has_next=has_next)
    return Answer(206 if is_part else 200, document, headers, items, page.offset, total if shape.totals else None)


def _links(
    request: SimulatedRequest, options: Options, page: Page, *, following: int, total: int, has_next: bool
) -> dict[str, str]:
    """The Link header of TMF630; only `next` where the cursor stands in the URL."""
    if options.shape.paging in ("link_next", "cursor"):
        return {"Link": _link(request, "next", {"cursor": _cursor(following)})} if has_next else {}
    limit = page.limit or total
    places = {"self": page.offset, "first": 0, "last": max(0, total - 1) // limit * limit}
    places |= {"next": following} if has_next else {}
    places |= {"prev": max(0, page.offset - limit)} if page.offset else {}
    return {
        "Link": ", ".join(_link(request, name, _place(options, position, limit)) for name, position in places.items())
    }


def _place(options: Options, position: int, limit: int) -> dict[str, str]:
    shape = options.shape
    if shape.paging == "page_size":
        return {"page": str(position // limit + 1), "size": str(limit)}
    return {shape.offset_parameter: str(position), shape.limit_parameter: str(limit)}


def _link(request: SimulatedRequest, relation: str, position: dict[str, str]) -> str:
    return f'<{request.url}?{urlencode({**request.query, **position})}>; rel="{relation}"'


def _cursor(position: int) -> str:
    return f"c{position * 2654435761 % 2**32:08x}{position:x}"


def _place_of(cursor: str) -> int:
    """The place that a cursor stands for. Refused with 400 if nobody ever gave it out."""
    if not cursor:
        return 0
    try:
        position = int(cursor[9:], 16)
    except ValueError:
        raise bad_request() from None
    if position < 0 or _cursor(position) != cursor:
        raise bad_request()
    return position


def _number(request: SimulatedRequest, name: str, default: int, least: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 12 or int(text) < least:
        raise bad_request()
    return int(text)
