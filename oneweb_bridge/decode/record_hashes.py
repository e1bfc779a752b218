"""Looking at records without decoding them: which they are, and whether somebody has to look closer. Pure.

Most records did not change since the last poll. The bytes of those members that can cause an event
are hashed, with the key and a salt that is the fingerprint of the call's mapping, so that a
corrected field path takes effect at once. Members that may change without an event, such as the time
a terminal was last seen, are left out. An equal hash means equal fields; a different one decides
nothing: such a record is decoded and compared field by field.

A page whose records all have a plain key is looked at in one piece, because that costs no more
than splitting it; any other page record by record.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from operator import itemgetter
from typing import Any

import msgspec

from oneweb_bridge.decode import values
from oneweb_bridge.decode.border import Unreadable, at_border
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.fields import UNIT_MEMBERS
from oneweb_bridge.decode.pages import NO_CHARACTER, ROWS, decode_record, merges_rows
from oneweb_bridge.decode.paths import compile_path, top_member, written_names

Raw = msgspec.Raw
Parts = Sequence[bytes | Raw]
_BEHIND_KEY = itemgetter(slice(1, None))
MAX_WHOLE_PAGE_BYTES = 12_000_000
"""Bytes of a page that is looked at in one piece: nobody else runs meanwhile, and it takes memory."""


class Salt(msgspec.Struct, frozen=True):
    """The mapping's fingerprint in the form that hashes take it."""

    salt: bytes

    @classmethod
    def of(cls, fingerprint: str) -> "Salt":
        return cls(blake2b(fingerprint.encode(), digest_size=16).digest())

    def hash(self, key: str, parts: Iterable[bytes | Raw]) -> bytes:
        """16 bytes that are equal only for an equal key and equal parts, of which JSON has no NUL."""
        return self.hashes((key,), (parts,))[0]

    def hashes(self, keys: Iterable[str], parts: Iterable[Iterable[bytes | Raw]]) -> list[bytes]:
        """The hash of each key with its parts."""
        salt, join = self.salt, b"\0".join
        return [
            blake2b(join((salt, key.encode(), *of_key)), digest_size=16).digest()
            for key, of_key in zip(keys, parts, strict=True)
        ]


class RecordHasher(msgspec.Struct, frozen=True):
    """How a call's records are looked at.

    `key` gives the key of one record, or raises Unreadable; `parts` what is hashed of each of some; `page` the
    keys and the hashes of all records of a page, or None when it must be looked at record by record.
    """

    key: Callable[[Raw], str]
    parts: Callable[[Sequence[Raw]], Iterable[Parts]]
    page: Callable[[bytes, Salt], tuple[list[str], list[bytes]] | None]


def record_hasher(call: Call) -> RecordHasher:
    """How the records of a call are looked at.

    Members are looked for as an answer writes them: its first record shows whether that is resourceState or
    resource_state, and what is hashed follows it.
    """
    plain, known = _plain_key_member(call), dict[tuple[tuple[str, str], ...], _Columns]()
    names = [*_members(call, plain), *([plain] if plain else [])]

    def columns_for(first: Iterable[str]) -> _Columns:
        written = written_names(names, list(first))
        if written not in known:
            known[written] = _columns(call, plain, dict(written))
        return known[written]

    def parts(raws: Sequence[Raw]) -> Iterable[Parts]:
        return map(columns_for(_members_of(raws[0])).parts, raws) if raws else ()

    def page(body: bytes, salt: Salt) -> tuple[list[str], list[bytes]] | None:
        return columns_for(_members_of_first(body)).page(body, salt)

    return RecordHasher(key_reader(call), parts, page)


def _members_of(raw: Raw) -> Iterable[str]:
    try:
        return _raw_object(raw)
    except (msgspec.DecodeError, RecursionError):
        return ()


def _members_of_first(body: bytes) -> Iterable[str]:
    """The members of the first record of a list; none where it is too long to be one."""
    try:
        first, _ = _json.raw_decode(body[1:_FIRST_BYTES].decode(errors="ignore").lstrip())
    except (ValueError, RecursionError):
        return ()
    return first if isinstance(first, dict) else ()


_raw_object = msgspec.json.Decoder(dict[str, Raw]).decode
_json = json.JSONDecoder()
_FIRST_BYTES = 65536


class _Columns(msgspec.Struct, frozen=True):
    """The hashed members of a call's records, under the names that an answer gives them."""

    parts: Callable[[Raw], Parts]
    page: Callable[[bytes, Salt], tuple[list[str], list[bytes]] | None]


def _columns(call: Call, plain: str | None, written: Mapping[str, str]) -> _Columns:
    names = _members(call, plain)
    columns = [(f"m{i}", Raw, msgspec.field(default=Raw(b""))) for i in range(len(names))]
    rename = {f"m{i}": written.get(name, name) for i, name in enumerate(names)}
    key = None if plain is None else written.get(plain, plain)
    return _Columns(_hashed_members(columns, rename), _page_of(call, key, columns, rename))


def _plain_key_member(call: Call) -> str | None:
    """The member that is the whole key, if the key is one."""
    return call.key[0] if len(call.key) == 1 and top_member(call.key[0]) == call.key[0] else None


def _members(call: Call, plain: str | None) -> list[str]:
    """The members of a record that can cause an event, but for a key that is hashed anyway."""
    paths = [path for field in call.fields if not field.volatile for path in field.paths]
    rows = (ROWS,) if merges_rows(call) else ()
    is_flat = any(field.type == "number" and path == top_member(path) for field in call.fields for path in field.paths)
    beside = UNIT_MEMBERS if is_flat else ()
    names = {name for path in (*paths, *call.key, *rows, *beside) if (name := top_member(path))}
    return sorted(names - {plain})


def _hashed_members(columns: list[Any], rename: dict[str, str]) -> Callable[[Raw], Parts]:
    decode = msgspec.json.Decoder(msgspec.defstruct("Parts", columns, rename=rename, gc=False)).decode

    def parts(raw: Raw) -> Parts:
        try:
            return msgspec.structs.astuple(decode(raw))
        except (msgspec.DecodeError, RecursionError):
            return (raw,)

    return parts


def _page_of(
    call: Call, plain: str | None, columns: list[Any], rename: dict[str, str]
) -> Callable[[bytes, Salt], tuple[list[str], list[bytes]] | None]:
    if plain is None or call.records not in (None, "$[*]") or merges_rows(call):
        return lambda _, __: None
    record = msgspec.defstruct("Record", [("key", str), *columns], rename={"key": plain, **rename}, gc=False)
    decode: Any = msgspec.json.Decoder(list[record]).decode  # type: ignore[valid-type]  # made at run time
    astuple = msgspec.structs.astuple

    def page(body: bytes, salt: Salt) -> tuple[list[str], list[bytes]] | None:
        if body[:1] != b"[" or len(body) > MAX_WHOLE_PAGE_BYTES:
            return None
        try:
            rows = decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None
        keys = [row.key for row in rows]
        # Nearly every key is a plain text; whatever is not goes the long way.
        if not all(keys) or not "".join(keys).isascii():
            return None
        # Tuples are not kept, or the garbage collector would look through all of them again and again.
        return keys, salt.hashes(keys, map(_BEHIND_KEY, map(astuple, rows)))

    return page


# ── keys ───────────────────────────────────────────────────────────────────────────────────────


def key_reader(call: Call) -> Callable[[Raw], str]:
    """A function from an undecoded record to its key. It raises Unreadable when there is none."""
    plain = _plain_key_member(call)
    if plain is not None:
        return _plain_key(plain)
    steps = [compile_path(path) for path in call.key]

    def key(raw: Raw) -> str:
        record = decode_record(raw)
        parts = [values.parse_text(step(record)) for step in steps]
        if not all(parts):
            raise Unreadable(f"a record without {' or '.join(call.key)}")
        return "/".join(part for part in parts if part)

    return _as_unreadable(key)


def _plain_key(name: str) -> Callable[[Raw], str]:
    key_struct = msgspec.defstruct("Key", [("key", str | int | None, None)], rename={"key": name}, gc=False)
    decode, find = msgspec.json.Decoder(key_struct).decode, compile_path(name)

    def key(raw: Raw) -> str:
        found = values.parse_text(find(decode_record(raw)))
        if not found:
            raise Unreadable(f"a record without {name}")
        return found

    safe = _as_unreadable(key)

    def quick(raw: Raw) -> str:
        try:
            found = decode(raw).key  # type: ignore[attr-defined]  # the struct is made at run time
        except (msgspec.DecodeError, RecursionError):
            return safe(raw)
        # Nearly every key is a plain text; whatever is not goes the long way.
        return found if type(found) is str and found.isascii() and found else safe(raw)

    return quick


def _as_unreadable(key: Callable[[Raw], str]) -> Callable[[Raw], str]:
    @at_border
    def safe(raw: Raw) -> str:
        found = key(raw)
        if NO_CHARACTER in found:
            raise Unreadable("a record whose key has half a character in it")
        return found

    return safe
