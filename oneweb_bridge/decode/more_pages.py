"""What an answer says of further pages beside its list: a total, a next page, a flag. Pure.

Only members outside of the list are looked at, and the list itself is not decoded.
"""

from collections.abc import Iterator

import msgspec

from oneweb_bridge.decode.listings import TOTALS
from oneweb_bridge.decode.paths import fold_name, member_name
from oneweb_bridge.decode.values import parse_datetime

MAX_DEPTH = 3
MAX_NAME_CHARS = 60
_MORE = frozenset(("hasmore", "hasnext", "hasnextpage", "moreresults", "istruncated"))
_NEXT = ("next", "continuationtoken")
"""How the names of members begin that say where the next page is."""

_PAGE_WORDS = ("page", "cursor", "token", "link", "url", "uri", "href", "marker", "offset")
"""What is in the names of those of which nothing but a page is to be expected, beside `next` itself."""
_NO_PAGE = ("synctoken", "deltalink", "deltatoken")
"""How the names of addresses end that are for the next listing."""
_SCHEDULES = ("update", "refresh", "poll", "run", "invoice", "bill", "payment", "maintenance")
"""What is in the names of those that say when something happens next."""
MAX_VALUE_BYTES = 200
"""Bytes of a value that are looked at."""
_decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class MorePages(msgspec.Struct, frozen=True):
    """`total` is the largest number of records that the answer says there are, and `total_path` where it stands.

    `next_path` is the member that names a next page, or says that there is more; "" where there is none. `page_path` is
    the same, but no member like `nextInvoice`, which may be about something else.
    """

    total: int = 0
    total_path: str = ""
    next_path: str = ""
    page_path: str = ""


_NOTHING = MorePages()


def more_pages_of(body: bytes) -> MorePages:
    """What a body says; nothing where it is a list, one record, or cannot be read."""
    if body.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] != b"{":
        return _NOTHING
    total, total_path, next_path, page_path, is_last = 0, "", "", "", False
    for path, folded, raw in _members(msgspec.Raw(body), "", 0):
        count = raw.strip(b'"')
        if folded in TOTALS and count.isdigit() and int(count) > total:
            total, total_path = int(count), path
        elif (folded in _MORE and raw == b"true") or _names_next_page(path, folded, raw):
            next_path = next_path or path
            page_path = page_path or (path if _is_about_pages(folded) else "")
        is_last = is_last or (folded in _MORE and raw == b"false")
    # Some answers have a cursor also where nothing follows.
    return MorePages(total, total_path) if is_last else MorePages(total, total_path, next_path, page_path)


def _is_about_pages(folded: str) -> bool:
    name = folded.rpartition(".")[2]
    return name == "next" or folded in _MORE or any(word in name for word in _PAGE_WORDS)


def _names_next_page(path: str, folded: str, raw: bytes) -> bool:
    # Of @odata.nextLink the part behind the dot counts.
    name = folded.rpartition(".")[2]
    is_next = name.startswith(_NEXT) or (folded == "href" and ".next." in f".{path.casefold()}")
    if not is_next or name.endswith(_NO_PAGE) or not raw.startswith(b'"') or raw == b'""':
        return False
    return not _is_scheduled(name, raw.strip(b'"')) or _is_about_pages(folded)


def _is_scheduled(name: str, text: bytes) -> bool:
    """Whether a member is the time of a next update. Other times may be where the next page begins."""
    if not any(word in name for word in _SCHEDULES) or text[4:5] != b"-":
        return False
    try:
        parse_datetime(text.decode())
    except ValueError:
        return False
    return True


def _members(raw: msgspec.Raw, above: str, depth: int) -> Iterator[tuple[str, str, bytes]]:
    """Path, folded name and value of the members of an object that is no record, and of the objects in it."""
    try:
        members = _decode(raw)
    except (ValueError, RecursionError):
        return
    # One record, or one table: what it counts are no records.
    if member_name(members, "id") or (member_name(members, "columns") and member_name(members, "rows")):
        return
    for name, inner in members.items():
        text = bytes(memoryview(inner)[:MAX_VALUE_BYTES])
        if len(name) > MAX_NAME_CHARS:
            continue
        if text[:1] == b"{" and depth < MAX_DEPTH:
            yield from _members(inner, f"{above}{name}.", depth + 1)
        elif text[:1] not in (b"[", b"{"):
            yield f"{above}{name}", fold_name(name), text
