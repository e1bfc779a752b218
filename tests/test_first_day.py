"""What would be silently wrong on the first day with another API: ids that are no IMEIs, states that nobody knows."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge import explore
from oneweb_bridge.decode.border import BadPage
from oneweb_bridge.decode.fields import unit_in, value_in
from oneweb_bridge.decode.pages import EmptyPage, split_page
from oneweb_bridge.decode.record_hashes import key_reader
from oneweb_bridge.simulator import Simulator, serve
from tests import fidelity
from tests.polls import Bench, bench
from tests.test_coverage import spoil
from tests.test_decode import POLLING, read_one

TERMINALS = "user_terminals"


@pytest.fixture(name="b")
async def _bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(tmp_path, {"terminals": 12}) as opened:
        yield opened


def each(change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda records: [change(record) for record in records]


async def unexpected(b: Bench) -> list[str]:
    return [alert.message for alert in (await b.poll(TERMINALS)).alerts if alert.kind == "answer_unexpected"]


async def test_ids_that_are_no_imeis_are_told(b: Bench) -> None:
    """The member that has them is named, also where nothing is decoded again, and the line that mends it."""
    await spoil(b, TERMINALS, each(lambda r: {**r, "id": f"ut-{r['imei'][-4:]}"}))
    for _ in range(2):
        (message,) = await unexpected(b)
        assert "which the member imei has" in message
        assert message.endswith("set polling.user_terminals.key: imei")


@pytest.mark.parametrize("mark", [" ", "-", ""])
async def test_an_imei_that_is_written_otherwise_is_no_other_id(mark: str, b: Bench) -> None:
    await spoil(b, TERMINALS, each(lambda r: {**r, "imei": mark.join([r["imei"][:2], r["imei"][2:]])}))
    assert await unexpected(b) == []


async def test_states_that_nobody_knows_are_told(b: Bench) -> None:
    """Where no terminal is online or offline in a word that is known, none would ever count as online."""
    await spoil(b, TERMINALS, each(lambda r: {**r, "resourceState": "UP" if int(r["id"]) % 2 else "DOWN"}))
    for _ in range(2):
        (message,) = await unexpected(b)
        assert "they are DOWN, UP: name those that mean online in mapping.online_states" in message


@pytest.mark.parametrize("states", [("offline", "offline"), ("ONLINE", "maintenance"), ("Offline", "stored")])
async def test_states_of_which_one_is_known_are_not(states: tuple[str, str], b: Bench) -> None:
    """All may be offline, and further words are published as they come."""
    await spoil(b, TERMINALS, each(lambda r: {**r, "resourceState": states[int(r["id"]) % 2]}))
    assert await unexpected(b) == []


async def _explored(change: Callable[[Simulator], None], lines: str = "") -> tuple[bool, str]:
    printed: list[str] = []
    async with serve(fidelity.options_of(fidelity.Row(row="", differs=""))) as simulator:
        change(simulator)
        good = await explore.explore(fidelity.config_of(lines, simulator.url), printed.append)
    return good, "\n".join(printed)


def _up_and_down(simulator: Simulator) -> None:
    for terminal in simulator.truth("terminals"):
        state = {"online": "UP", "offline": "DOWN"}[terminal["resourceState"]]
        simulator.fleet("set", id=terminal["id"], attributes={"resourceState": state})


async def test_explore_names_the_states_that_mean_online() -> None:
    good, text = await _explored(_up_and_down)
    assert not good
    assert "online_states: [online, UP]" in text
    good, text = await _explored(_up_and_down, "mapping: {online_states: [online, UP]}")
    assert good, text


# ── an empty list, and other names ─────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "body",
    [
        b'{"items": [], "total": 4}',
        b'{"items": [], "totalRecords": "4"}',
        b'{"data": null, "page": {"totalElements": 4}}',
        b'{"items": [], "count": 4}',
        b'{"value": [], "@odata.count": 4}',
        b'{"items": [], "error": "quota"}',
        b'{"success": false, "data": []}',
        b'{"status": "FAILED", "results": null}',
    ],
)
def test_an_empty_list_that_is_contradicted_fails(body: bytes) -> None:
    """Also where `records` says where it is."""
    selector = "value[*]" if b'"value"' in body else None
    with pytest.raises(BadPage, match=r"is empty, but '.+' says that"):
        split_page(body, selector)


def test_an_empty_page_behind_others_is_no_contradiction() -> None:
    """Every page says the total, also the one behind the last, which alone ends a listing without a header."""
    with pytest.raises(EmptyPage):
        split_page(b'{"items": [], "total": 4}')
    with pytest.raises(BadPage) as refusal:
        split_page(b'{"items": [], "total": 4, "error": "quota"}')
    assert not isinstance(refusal.value, EmptyPage)


@pytest.mark.parametrize(
    "body",
    [
        b"[]",
        b"null",
        b'{"items": [], "total": 0}',
        b'{"Data": null, "success": true, "status": "OK"}',
        b'{"items": [], "error": null, "errors": []}',
    ],
)
def test_an_empty_list_alone_is_empty(body: bytes) -> None:
    assert split_page(body).records == []


def test_nested_records_are_found_under_any_spelling_of_their_list() -> None:
    for body in (b'[{"Bucket": [{"Id": 1}]}]', b'{"Items": [{"BUCKET": [{"id": 1}]}]}', b'[{"bucket": {"id": 1}}]'):
        (record,) = split_page(body, "$[*].bucket[*]").records
        assert key_reader(POLLING["usage_consumption"])(record) == "1"
    (record,) = split_page(b'{"Response": {"Record-List": [{"id": 1}]}}', "response.recordList[*]").records
    assert bytes(record) == b'{"id":1}'


def test_a_unit_is_read_under_any_spelling_of_its_member() -> None:
    """A unit that is passed over is a value that is a thousand times wrong."""
    assert unit_in({"Amount": 1, "Units": "MB"}) == "MB"
    assert value_in({"Amount": 1, "Units": "MB"}) == 1
    counters = [{"CounterType": "usage", "Level": "global", "Value": {"Amount": 120500, "Units": "MB"}}]
    assert read_one("usage_consumption", {"Id": "X", "BucketCounter": counters}).fields["used_gb"] == 120.5


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (b'{"A-1": {"id": "A-1", "n": 1}, "B": {"id": "B"}}', 2),
        (b'{"data": [{"type": "t", "id": "1", "attributes": {"n": 1}}]}', 1),
    ],
)
def test_other_envelopes_are_read(body: bytes, records: int) -> None:
    assert len(split_page(body).records) == records


def test_an_object_of_objects_that_name_no_id_is_no_list() -> None:
    with pytest.raises(BadPage, match="without a list"):
        split_page(b'{"A-1": {"n": 1}, "B": {"n": 2}}')
