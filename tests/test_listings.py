"""Where the records of an answer stand, and when an answer without any is an empty listing."""

import json

import msgspec
import pytest

from oneweb_bridge.decode.border import BadPage
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.decode.fields import DecodeRules
from oneweb_bridge.decode.pages import expand_tables, split_answer_about, split_page
from oneweb_bridge.decode.records import record_decoder


@pytest.mark.parametrize(
    "body",
    ["[]", "null", '{"items": null}', '{"items": []}', '{"Items": null}', '{"data": null, "meta": {"total": 0}}'],
)
def test_an_empty_list_null_and_a_member_that_is_there_are_an_empty_listing(body: str) -> None:
    assert split_page(body.encode()).records == []


@pytest.mark.parametrize("selector", ["$.data.terminals[*]", "$.data[*]"])
def test_a_selected_member_that_is_there_and_empty_is_an_empty_listing(selector: str) -> None:
    for empty in ("null", "[]"):
        body = f'{{"data": {{"terminals": {empty}}}}}' if "terminals" in selector else f'{{"data": {empty}}}'
        assert split_page(body.encode(), selector).records == []


NESTED = {"payload": {"userTerminals": [{"id": 1}]}}


@pytest.mark.parametrize(
    ("answer", "selector", "expected"),
    [
        (NESTED, "$.terminals[*]", ("'terminals'", "$.payload.userTerminals[*] (1)")),
        ([{"id": 1, "counters": [{"a": 1}]}], "$[*].bucket[*]", ("'bucket'", "$[*].counters[*] (1)")),
        (NESTED, None, ("items, data or results", "$.payload.userTerminals[*] (1)")),
        ({"message": "hello"}, "$.terminals[*]", ("'terminals'", "no list of objects")),
    ],
)
def test_a_list_that_is_not_where_it_should_be_fails_and_names_those_that_are_there(
    answer: object, selector: str | None, expected: tuple[str, ...]
) -> None:
    with pytest.raises(BadPage) as error:
        split_page(json.dumps(answer).encode(), selector)
    assert all(text in str(error.value) for text in expected), str(error.value)


def test_a_bucket_that_some_reports_do_not_have_is_no_error() -> None:
    page = split_page(b'[{"id": 1}, {"id": 2, "bucket": [{"id": 3}]}]', "$[*].bucket[*]")
    assert len(page.records) == 1


@pytest.mark.parametrize("rest", ['"total": 25', '"meta": {"totalCount": 25}', '"errors": [{"code": 1}]'])
@pytest.mark.parametrize("empty", ["[]", "null"])
def test_an_empty_list_that_the_rest_of_the_answer_contradicts_fails(rest: str, empty: str) -> None:
    with pytest.raises(BadPage, match="is empty, but"):
        split_page(f'{{"items": {empty}, {rest}}}'.encode())


def test_an_object_keyed_by_ids_is_a_list_of_its_entries() -> None:
    page = split_page(b'{"359235170006117": {"rsrp": -40}, "359235170006118": [{"timestamp": 1}]}')
    assert [json.loads(bytes(raw)) for raw in page.records] == [
        {"rsrp": -40, "id": "359235170006117"},
        {"id": "359235170006118", "measurement": [{"timestamp": 1}]},
    ]


def test_a_state_beside_the_resource_is_the_same_as_within_it() -> None:
    """What a record is wrapped in goes, and what stands beside it stays; a site is no wrapper of a terminal."""
    call = CALLS["user_terminals"]
    wrapped = b'{"resource": {"id": "1", "name": "A"}, "resourceState": "online"}'
    (raw,) = expand_tables(call, [msgspec.Raw(wrapped)])
    assert json.loads(bytes(raw)) == {"id": "1", "name": "A", "resourceState": "online"}
    by_imei = msgspec.Raw(b'{"imei": "1", "place": {"id": "SITE-1"}, "product": {"id": "SC-1"}}')
    assert expand_tables(call, [by_imei]) == [by_imei]


@pytest.mark.parametrize("state", ['"online"', '{"value": "online"}', '{"state": "online"}'])
def test_a_state_in_an_object_of_its_own_is_read(state: str) -> None:
    record = json.loads(f'{{"id": "1", "resourceState": {state}}}')
    read = record_decoder(CALLS["user_terminals"], DecodeRules())("1", record)
    assert read.fields == {"imei": "1", "state": "online"}


@pytest.mark.parametrize(
    "body", [b"{", b'{"a": 1e999}', b"[{]", b"17", b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}", b""]
)
def test_an_unreadable_answer_about_one_id_is_a_bad_page(body: bytes) -> None:
    """Nothing but BadPage leaves: any other error would end the process."""
    for call in ("ut_signal_quality", "user_terminal_components", "usage_consumption"):
        try:
            split_answer_about("1", body, CALLS[call])
        except BadPage:
            continue
