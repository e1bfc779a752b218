"""A change of an answer's shape is told on the day it happens, once, and what is rare or new by nature is not."""

from pathlib import Path
from typing import Any

from oneweb_bridge.decode.answer_shape import DAY_MS, AnswerShape, note_shape, outline_of, unread_members
from tests.polls import Bench, fleet, opened
from tests.test_coverage import renamed, spoil
from tests.test_decode import POLLING

CALL = POLLING["user_terminals"]
HOUR_MS = 3_600_000
RECORD = {"id": "1", "firmware": "a", "location": {"features": [{"speed": 1}]}, "tags": [{"name": "x", "value": 1}]}


def changes(shape: AnswerShape, records: list[Any], now: int) -> list[str]:
    """What is news of some records."""
    return [change.about for change in note_shape(shape, outline_of(records), CALL, now)]


def known_for_a_day(record: dict[str, Any] = RECORD) -> AnswerShape:
    shape = AnswerShape(0)
    for now in range(0, DAY_MS + 1, HOUR_MS):
        assert changes(shape, [record] * 10, now) == []
    return shape


def test_an_outline_has_paths_and_types_and_no_values() -> None:
    outline = outline_of([RECORD, {"359235170006117": {"a": 1}, "id": 5}])
    assert {path: sorted(seen.types) for path, seen in outline.items()} == {
        "": ["object"],
        "id": ["number", "text"],
        "firmware": ["text"],
        "location": ["object"],
        "location.features": ["list"],
        "location.features[*]": ["object"],
        "location.features[*].speed": ["number"],
        "tags": ["list"],
        "tags[x]": ["object"],
        "tags[x].name": ["text"],
        "tags[x].value": ["number"],
        "*": ["object"],
        "*.a": ["number"],
    }


def test_a_member_that_was_there_for_a_day_and_is_gone_is_told_once() -> None:
    """Only the member itself is named, not all below it; and its return is told too."""
    shape = known_for_a_day()
    without = {name: value for name, value in RECORD.items() if name != "location"}
    assert [changes(shape, [without] * 10, DAY_MS + n) for n in (1, 2)] == [["gone location"], []]
    assert changes(shape, [RECORD] * 10, DAY_MS + 3) == ["back location"]


def test_a_member_that_was_there_for_less_than_a_day_may_go() -> None:
    shape = AnswerShape(0)
    changes(shape, [RECORD] * 10, 0)
    changes(shape, [RECORD] * 10, DAY_MS - 1)
    assert changes(shape, [{"id": "1"}] * 10, DAY_MS) == []


def test_a_member_of_few_records_may_go() -> None:
    shape = AnswerShape(0)
    for now in (0, DAY_MS):
        changes(shape, [RECORD, *[{"id": "2"}] * 9], now)
    assert changes(shape, [{"id": "2"}] * 10, DAY_MS + 1) == []


def test_one_record_without_a_member_is_no_news() -> None:
    shape = known_for_a_day()
    assert changes(shape, [{"id": "1"}], DAY_MS + 1) == []


def test_a_type_that_changes_is_told() -> None:
    shape = known_for_a_day()
    assert changes(shape, [RECORD | {"firmware": {"main": "a"}}] * 3, DAY_MS + 1) == ["type firmware"]
    assert changes(known_for_a_day(), [RECORD, RECORD | {"firmware": 5}], DAY_MS + 1) == []


def test_a_new_member_is_told_once_and_not_while_the_answers_are_new() -> None:
    shape = known_for_a_day()
    new = RECORD | {"cell": {"name": "c", "beam": 1}}
    assert [changes(shape, [new] * 3, DAY_MS + n) for n in (1, 2)] == [["new cell"], []]
    assert changes(AnswerShape(0), [new], HOUR_MS - 1) == []
    # Few records have it, or a field was waiting for it.
    assert changes(known_for_a_day(), [RECORD] * 5 + [new], DAY_MS + 1) == []
    assert changes(known_for_a_day(), [RECORD | {"resourceState": "online"}] * 3, DAY_MS + 1) == []


def test_members_that_no_field_reads_are_counted() -> None:
    records = [{"id": "1", "resource_state": "x", "operational": "online", "@type": "T"}, {"operational": "online"}]
    assert unread_members(outline_of(records), CALL) == {"operational": 2}


async def _listed(b: Bench) -> list[str]:
    return [alert.message for alert in (await b.poll("user_terminals")).alerts if alert.kind == "shape_changed"]


async def test_the_shape_is_remembered_over_a_restart(tmp_path: Path) -> None:
    """What changed at the vendor while the bridge was away is told at the first poll."""
    async with fleet(terminals=12) as simulator:
        async with opened(tmp_path, simulator) as b:
            for _ in range(3):
                assert await _listed(b) == []
                await b.later(13 * 3600)
        async with opened(tmp_path, simulator) as b:
            await spoil(b, "user_terminals", renamed("externalId", "outerId"))
            (message,) = await _listed(b)
            assert "place.externalId, which was there for a day, is in no record any more" in message
            assert await _listed(b) == []
