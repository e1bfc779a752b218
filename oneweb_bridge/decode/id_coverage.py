"""What is unexpected about ids: those that match no record, and those of terminals that are not their IMEIs. Pure."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.decode.coverage import MAX_IMPLAUSIBLE, TERMINALS, Finding
from oneweb_bridge.decode.paths import compile_path

MAX_ID_CHARS = 64
"""Characters of an id that are compared and named."""


def key_findings(call: Call, records: Iterable[Any]) -> list[Finding]:
    """Terminals whose ids are not their IMEIs, although their records have these."""
    if call.id != TERMINALS:
        return []
    find_id, find_imei = compile_path(call.key[0]), compile_path("imei")
    pairs = [(_text(find_id(record)), _text(imei)) for record in records if (imei := find_imei(record)) is not None]
    if not pairs or any(_without_marks(id) == _without_marks(imei) for id, imei in pairs):
        return []
    id, imei = pairs[0]
    message = (
        f"the ids of terminals are not their IMEIs, which the member imei has: one has the id {id[:MAX_ID_CHARS]} and "
        f"the IMEI {imei[:MAX_ID_CHARS]}; set polling.{call.id}.key: imei"
    )
    return [Finding("ids", "imei", message)]


def _text(id: Any) -> str:
    """An id as it is read; see `record_hashes.key_reader`."""
    return str(int(id) if isinstance(id, float) and id.is_integer() else id)


def _without_marks(id: str) -> str:
    """An id without what people put between its digits."""
    return re.sub(r"[\s./_-]", "", id[:MAX_ID_CHARS])


class UnmatchedIds(msgspec.Struct, frozen=True):
    """Ids of a report or of usage that match no record: how many of all, two examples, and the field that has them."""

    count: int
    total: int
    examples: tuple[str, ...]
    lasting: int = 0
    """How many of them the inventory did not list although it was listed after they first came."""
    matching_field: str = ""


def is_worth_reporting(unmatched: UnmatchedIds) -> bool:
    """Whether ids that match nothing are reported: many at once, or some that a later listing did not know either."""
    return unmatched.lasting > 0 or unmatched.count > max(MAX_IMPLAUSIBLE, unmatched.total // 10)


def ids_finding(call: Call, entity: str, unmatched: UnmatchedIds) -> Finding:
    """The finding about ids that match no record."""
    field = unmatched.matching_field
    advice = f"; they are in the field {field}: set polling.{call.id}.match: {field}" if field else ""
    return Finding(
        "ids",
        "ids",
        f"{unmatched.count} of {unmatched.total} ids match no {entity} known, such as "
        f"{' and '.join(unmatched.examples[:2])}; they are kept aside{advice}",
        incomplete=True,
    )
