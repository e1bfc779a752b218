"""How much of an answer is read at all, so that none fills the memory. Pure.

JSON takes many times its length as objects: `[],` is 3 bytes, and a list takes 70. So besides the length of
an answer (`api.max_body`) its values are counted, and how deep they are nested, before anything is made of them.
"""

import re

MAX_VALUES = 3_000_000
"""Values of an answer, which take some 300 MB as objects."""
MAX_RECORDS = 250_000
"""Records of one page."""
MAX_MADE_BYTES = 128_000_000
"""Bytes of what is made out of a page: records that take over what stands above them can be many times as long."""
MAX_DEPTH = 100
_HARMLESS_BYTES = 8_000_000
"""Text up to here takes at most 400 MB, whatever is in it, and is not counted: that takes as long as to read it."""
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class TooMuch(ValueError):
    """Something that is larger than the bridge reads; the text says how."""


def check_size(text: bytes) -> None:
    """Raises TooMuch for JSON text with too many values. Commas and brackets in strings count as values."""
    if len(text) > _HARMLESS_BYTES:
        values = text.count(b",") + text.count(b"[") + text.count(b"{")
        if values > MAX_VALUES:
            raise TooMuch(f"more than {MAX_VALUES} values")


def check_depth(text: bytes) -> None:
    """Raises TooMuch for JSON text that is nested too deep."""
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and _is_deep(text):
        raise TooMuch(f"nested more than {MAX_DEPTH} deep")


def _is_deep(text: bytes) -> bool:
    brackets = _STRING.sub(b"", text).translate(None, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if not brackets:
            return False
        # What is nested nowhere deeper is taken away, level by level.
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)
