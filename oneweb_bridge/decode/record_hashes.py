"""Keys and hashes of records from their raw JSON. Pure.

Most records did not change since the last poll: one with the stored hash is unchanged and is not decoded.
The bytes of those members that can cause an event are hashed, with the key and a salt made of the mapping
fingerprint, so that a corrected field path takes effect at once. Members that may change without an event,
such as the time a terminal was last seen, are left out. A different hash decides nothing: that record is
decoded and compared field by field.

A page whose records all have a plain key is hashed as a whole, because that costs no more than splitting
it; any other page record by record.
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
from oneweb_bridge.decode.paths import compile_path, shows_style, top_member, written_names

Raw = msgspec.Raw
Parts = Sequence[bytes | Raw]
_WITHOUT_KEY = itemgetter(slice(1, None))
MAX_WHOLE_PAGE_BYTES = 12_000_000
"""Largest page that is hashed as a whole: no other task runs meanwhile, and it takes memory."""


class Salt(msgspec.Struct, frozen=True):
    """The mapping fingerprint as a salt of the record hashes."""

    salt: bytes

    @classmethod
    def of(cls, fingerprint: str) -> "Salt":
        return cls(blake2b(fingerprint.encode(), digest_size=16).digest())

    def hash(self, key: str, parts: Iterable[bytes | Raw]) -> bytes:
        """16 bytes that are equal only for an equal key and equal parts; JSON never has the NUL between them."""
        return self.hashes((key,), (parts,))[0]

    def hashes(self, keys: Iterable[str], parts: Iterable[Iterable[bytes | Raw]]) -> list[bytes]:
        """The hash of each key with its parts."""
        salt, join = self.salt, b"\0".join
        return [
            blake2b(join((salt, key.encode(), *of_key)), digest_size=16).digest()
            for key, of_key in zip(keys, parts, strict=True)
        ]


class RecordHasher(msgspec.Struct, frozen=True):
    """Reads the keys and hashes of one call's records.

    `key` gives the key of one record, or raises Unreadable; `hashed_members` the hashed bytes of each; `hash_page` the
    keys and hashes of all records of a page, or None when it must be hashed record by record.
    """

    key: Callable[[Raw], str]
    hashed_members: Callable[[Sequence[Raw]], Iterable[Parts]]
    hash_page: Callable[[bytes, Salt], tuple[list[str], list[bytes]] | None]


def record_hasher(call: Call) -> RecordHasher:
    """The hasher of a call's records.

    Members are read under the names that the answer uses: its first record shows whether that is resourceState or
    resource_state. Where it does not, all of each record is hashed, so that no change is overlooked.
    """
    plain, known = _plain_key_member(call), dict[tuple[tuple[str, str], ...], _Columns]()
    names = [*_members(call, plain), *([plain] if plain else [])]
    # Also those that are not hashed show how names are written.
    all_names = [*names, *(name for field in call.fields for path in field.paths if (name := top_member(path)))]

    def columns_for(first: Iterable[str]) -> _Columns:
        members = list(first)
        if not shows_style(all_names, members):
            return _WHOLE
        written = written_names(all_names, members)
        if written not in known:
            known[written] = _columns(call, plain, dict(written))
        return known[written]

    def hashed_members(raws: Sequence[Raw]) -> Iterable[Parts]:
        return map(columns_for(_members_of(raws[0])).hashed_members, raws) if raws else ()

    def hash_page(body: bytes, salt: Salt) -> tuple[list[str], list[bytes]] | None:
        return columns_for(_members_of_first(body)).hash_page(body, salt)

    return RecordHasher(key_reader(call), hashed_members, hash_page)


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

    hashed_members: Callable[[Raw], Parts]
    hash_page: Callable[[bytes, Salt], tuple[list[str], list[bytes]] | None]


_WHOLE = _Columns(lambda raw: (raw,), lambda _, __: None)


def _columns(call: Call, plain: str | None, written: Mapping[str, str]) -> _Columns:
    names = _members(call, plain)
    columns = [(f"m{i}", Raw, msgspec.field(default=Raw(b""))) for i in range(len(names))]
    rename = {f"m{i}": written.get(name, name) for i, name in enumerate(names)}
    key = None if plain is None else written.get(plain, plain)
    return _Columns(_hashed_members(columns, rename), _page_hasher(call, key, columns, rename))


def _plain_key_member(call: Call) -> str | None:
    """The member that is the whole key; None when the key is a path or has several parts."""
    return call.key[0] if len(call.key) == 1 and top_member(call.key[0]) == call.key[0] else None


def _members(call: Call, plain: str | None) -> list[str]:
    """The members of a record that can cause an event, without a plain key, which is hashed anyway.

    Of usage the effective date counts too: a forecast needs to know that a bucket shows the same at a later time.
    """
    paths = [path for field in call.fields if not field.volatile or call.reads == "usage" for path in field.paths]
    rows = (ROWS,) if merges_rows(call) else ()
    is_flat = any(field.type == "number" and path == top_member(path) for field in call.fields for path in field.paths)
    beside = UNIT_MEMBERS if is_flat else ()
    names = {name for path in (*paths, *call.key, *rows, *beside) if (name := top_member(path))}
    return sorted(names - {plain})


def _hashed_members(columns: list[Any], rename: dict[str, str]) -> Callable[[Raw], Parts]:
    decode = msgspec.json.Decoder(msgspec.defstruct("Parts", columns, rename=rename, gc=False)).decode

    def hashed_members(raw: Raw) -> Parts:
        try:
            return msgspec.structs.astuple(decode(raw))
        except (msgspec.DecodeError, RecursionError):
            return (raw,)

    return hashed_members


def _page_hasher(
    call: Call, plain: str | None, columns: list[Any], rename: dict[str, str]
) -> Callable[[bytes, Salt], tuple[list[str], list[bytes]] | None]:
    if plain is None or call.records not in (None, "$[*]") or merges_rows(call):
        return lambda _, __: None
    record = msgspec.defstruct("Record", [("key", str), *columns], rename={"key": plain, **rename}, gc=False)
    decode: Any = msgspec.json.Decoder(list[record]).decode  # type: ignore[valid-type]  # made at run time
    astuple = msgspec.structs.astuple

    def hash_page(body: bytes, salt: Salt) -> tuple[list[str], list[bytes]] | None:
        if body[:1] != b"[" or len(body) > MAX_WHOLE_PAGE_BYTES:
            return None
        try:
            rows = decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None
        keys = [row.key for row in rows]
        # Other keys (numbers, non-ASCII) are read and checked record by record.
        if not all(keys) or not "".join(keys).isascii():
            return None
        # No list of tuples is kept: the garbage collector would scan it again and again.
        return keys, salt.hashes(keys, map(_WITHOUT_KEY, map(astuple, rows)))

    return hash_page


# ── keys ───────────────────────────────────────────────────────────────────────────────────────


def key_reader(call: Call) -> Callable[[Raw], str]:
    """A function from an undecoded record to its key. It raises Unreadable when there is none."""
    plain = _plain_key_member(call)
    if plain is not None:
        return _plain_key(plain)
    steps = [compile_path(path) for path in call.key]

    def key(raw: Raw) -> str:
        record = _object(raw)
        parts = [_key_text(step(record)) for step in steps]
        if not all(parts):
            raise Unreadable(f"a record without {' or '.join(call.key)}")
        return "/".join(part for part in parts if part)

    return _as_unreadable(key)


def _plain_key(name: str) -> Callable[[Raw], str]:
    key_struct = msgspec.defstruct("Key", [("key", str | int | None, None)], rename={"key": name}, gc=False)
    decode, find = msgspec.json.Decoder(key_struct).decode, compile_path(name)

    def key(raw: Raw) -> str:
        key_text = _key_text(find(_object(raw)))
        if not key_text:
            raise Unreadable(f"a record without {name}")
        return key_text

    checked_key = _as_unreadable(key)

    def plain_key(raw: Raw) -> str:
        try:
            key_text = decode(raw).key  # type: ignore[attr-defined]  # the struct is made at run time
        except (msgspec.DecodeError, RecursionError):
            return checked_key(raw)
        # Other keys (numbers, non-ASCII) are read and checked in full.
        return key_text if type(key_text) is str and key_text.isascii() and key_text else checked_key(raw)

    return plain_key


def _object(raw: Raw) -> dict[str, Any]:
    """A record. Raises Unreadable for anything but an object: of a list the first element would be read."""
    record = decode_record(raw)
    if not isinstance(record, dict):
        raise Unreadable("a record that is no object")
    return record


def _key_text(value: Any) -> str | None:
    """A key as a text; a whole number that was sent with a fraction of 0 is that number."""
    return values.parse_text(int(value) if isinstance(value, float) and value.is_integer() else value)


def _as_unreadable(key: Callable[[Raw], str]) -> Callable[[Raw], str]:
    @at_border
    def checked_key(raw: Raw) -> str:
        key_text = key(raw)
        if NO_CHARACTER in key_text:
            raise Unreadable("a record whose key has half a character in it")
        return key_text

    return checked_key
