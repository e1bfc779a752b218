"""What comes from outside: every kind of value in every field of every answer and of every command.

Nothing of it may end the process. What cannot be read costs its own field, its own record or its own
sample, is counted and told, and everything beside it goes on.
"""

import contextlib
import copy
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oneweb_bridge.api import answers, auth, headers, rate_limits
from oneweb_bridge.commands import decode as commands
from oneweb_bridge.decode import record_hashes
from oneweb_bridge.decode.border import Unreadable
from oneweb_bridge.decode.catalogue import CALLS, Call
from oneweb_bridge.decode.fields import DecodeRules
from oneweb_bridge.decode.pages import clean_body, decode_record, expand_tables, split_page
from oneweb_bridge.decode.records import record_decoder
from oneweb_bridge.decode.samples import Measured, SampleDecoder, sample_decoder
from oneweb_bridge.encoding import encode
from oneweb_bridge.model import heads
from oneweb_bridge.model.records import DecodedRecord, Entry, Row, Sample
from oneweb_bridge.mqtt import topics
from oneweb_bridge.mqtt.topics import parse_command_topic
from oneweb_bridge.polling import diff, samples
from tests.outside import VALUES, check_publishable, places, with_value, with_values
from tests.polls import bench
from tests.test_decode import POLLING, body_of
from tests.test_explore import findings_in

FOLDER = Path(__file__).parent / "samples"
TREE = topics.TopicTree("oneweb", "main", "j")


def records_of(call: str) -> list[Any]:
    entries: list[Any] = json.loads(body_of(call))
    return entries


def sent(entries: list[Entry]) -> None:
    """Everything that is published of entries: legal topics, and JSON that is read again as it was."""
    for seq, entry in enumerate(entries, 1):
        for message in TREE.messages_of_row(Row(seq, 0, *msgspec.structs.astuple(entry))):
            assert message.topic.isprintable()
            if message.payload:
                check_publishable(json.loads(message.payload))


class Readers(msgspec.Struct, frozen=True):
    """The functions that read one call."""

    hasher: record_hashes.RecordHasher
    read: Callable[[str, Any], DecodedRecord]
    sample: SampleDecoder


@functools.cache
def readers_of(id: str) -> Readers:
    """The functions that read a call, made once, as they are for a configuration."""
    call = POLLING[id]
    return Readers(
        record_hashes.record_hasher(call),
        record_decoder(call, DecodeRules()),
        sample_decoder(call, DecodeRules()),
    )


def read_page(call: Call, body: bytes) -> dict[str, object]:
    """What is read of a page, by key, and published; as a poll does it."""
    records = expand_tables(call, split_page(body, call.records).records)
    readers = readers_of(call.id)
    readers.hasher.hash_page(clean_body(body), record_hashes.Salt.of("x"))
    members: dict[str, object] = {}
    for raw in records:
        with contextlib.suppress(Unreadable):
            id, _ = readers.hasher.key(raw), list(readers.hasher.hashed_members([raw]))
            decoded = decode_record(raw)
            if call.reads == "report":
                members[id] = publish_samples(call, readers.sample(id, decoded))
            else:
                members[id] = publish_record(readers.read(id, decoded))
    return members


def publish_samples(call: Call, measured: Measured) -> list[Sample]:
    """The samples as they are staged, findings_in and published."""
    samples_again = msgspec.msgpack.decode(msgspec.msgpack.encode(measured.samples), type=list[Sample])
    assert samples_again == measured.samples
    sent(
        samples.batch_new_samples(samples_again, samples.SampleContext(entity=call.entity, past={}, latest={})).entries
    )
    return samples_again


def publish_record(reading: DecodedRecord) -> DecodedRecord:
    """The record as it is compared, stored and published."""
    rule = diff.CompareRule(kind=reading.kind, volatile=frozenset(), unordered=frozenset({"product_ids"}))
    batch = diff.compare(rule, {}, [diff.ListedRecord(reading, b"")], {})
    sent(batch.entries)
    for put in batch.writes:
        assert json.loads(put.doc) is not None
    return reading


@pytest.mark.parametrize("call", CALLS)
def test_any_value_in_any_field_costs_no_other_record(call: str) -> None:
    """Whatever stands in one place of one record, the page is read, and the record beside it is read as ever."""
    row, (record, other, *_) = POLLING[call], records_of(call)
    alone = read_page(row, json.dumps([other]).encode())
    assert alone
    beside = json.dumps(other)
    for place in places(record):
        for kind, changed in zip(VALUES, with_values(record, place, VALUES.values()), strict=True):
            result = read_page(row, f"[{changed}, {beside}]".encode())
            assert {id: result.get(id) for id in alone} == alone, (place, kind)


@pytest.mark.parametrize("call", CALLS)
def test_explore_looks_at_any_number_anywhere(call: str) -> None:
    """An integer that no float can hold, wherever it stands, is a finding or none, and no traceback of `explore`."""
    record, other, *_ = records_of(call)
    for place in places(record):
        body = json.loads(f"[{with_value(record, place, VALUES['digits'])}, {json.dumps(other)}]")
        assert isinstance(findings_in(call, body), list)


@hypothesis.settings(max_examples=100)
@given(st.sampled_from(sorted(CALLS)), st.data())
def test_any_values_in_several_fields_cost_no_other_record(call: str, data: st.DataObject) -> None:
    """The same with several values at once, in any of the places."""
    row, (record, other, *_) = POLLING[call], records_of(call)
    body = copy.deepcopy(record)
    tokens: dict[str, str] = {}
    for place in data.draw(st.lists(st.sampled_from(sorted(places(record), key=str)), min_size=2, max_size=4)):
        at, token = body, f"token {len(tokens)}"
        try:
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = token
        except (TypeError, KeyError, IndexError):
            continue
        tokens[token] = VALUES[data.draw(st.sampled_from(sorted(VALUES)))]
    text = json.dumps(body)
    for token, value in tokens.items():
        text = text.replace(json.dumps(token), value)
    alone = read_page(row, json.dumps([other]).encode())
    result = read_page(row, f"[{text}, {json.dumps(other)}]".encode())
    assert {id: result.get(id) for id in alone} == alone


OWN_ID = "put the id here"
"""Stands for the id that each record has alone."""


def answer_with_everything(call: str) -> tuple[str, str]:
    """A good listing, and one in which every kind of value stands in every place, each in a record of its own."""
    record = records_of(call)[0]
    good, bad = [], []
    keys = [place for place in places(record) if place[-1] == "id"]
    own = keys[0] if call != "usage_consumption" else ("bucket", 0, "id")
    number = 0
    named = copy.deepcopy(record)
    at = named
    for key in own[:-1]:
        at = at[key]
    at[own[-1]] = OWN_ID
    whole = json.dumps(named)
    for place in places(record):
        for changed in with_values(named, place, VALUES.values()):
            number += 1
            good.append(whole.replace(OWN_ID, f"X-{number}"))
            bad.append(changed.replace(OWN_ID, f"X-{number}"))
    return f"[{','.join(good)}]", f"[{','.join(bad)}]"


@pytest.mark.parametrize("call", CALLS)
async def test_poll_of_everything_is_stored_and_published(call: str, tmp_path: Path) -> None:
    """A listing of every value in every place is polled, stored, published and polled again without an error."""
    good, bad = answer_with_everything(call)
    changes: dict[str, Any] = {"page": {"style": "none"}, "enabled": True}
    async with bench(tmp_path, polling={call: changes}) as b:
        last = []
        for body in (good, bad, bad, good):
            b.sim.fault("status", status=200, body=body, count=1)
            outcome = await b.poll(call)
            await b.runner.update_relations()
            rows = await b.rows("SELECT entity, id, what, name, ts, body FROM journal WHERE seq > ?", b._read)
            sent([Entry(*row) for row in rows])
            kinds = {alert.kind for alert in outcome.alerts}
            assert body == good or kinds >= {"set_aside"}
            assert body == good or call == "user_terminal_components" or kinds >= {"value_unreadable"}
            last = await b.news()
        for doc, *_ in await b.rows("SELECT doc FROM record WHERE kind != 'call'"):
            check_publishable(json.loads(doc))
        assert [row_before for row_before in last if row_before.what == "removed"] == []


async def test_agreed_number_is_the_same_from_the_api_to_the_broker(tmp_path: Path) -> None:
    """2^53 + 1 bytes are published, stored, compared and read again as 2^53 + 1 bytes."""
    async with bench(tmp_path) as b:
        await b.poll("user_terminals")
        entry = records_of("ut_traffic")[0] | {"id": b.ids("terminals")[0]}
        indicators = entry["measurement"][0]["performanceIndicator"]
        indicators[0]["value"] = 2**53 + 1
        name = {"cnxTx": "cnx_tx_bytes"}[indicators[0]["name"]]
        await b.news()
        for expected in (["metric"], []):
            b.sim.fault("status", status=200, body=json.dumps([entry]), count=1)
            b.configure(polling={"ut_traffic": {"page": {"style": "none"}}})
            await b.poll("ut_traffic")
            news = [news_row for news_row in await b.news() if news_row.what in ("metric", "history")]
            assert [news_row.what for news_row in news if news_row.body[name] == 2**53 + 1] == expected
        ((doc,),) = await b.rows("SELECT doc FROM newest WHERE report = 'traffic' AND id = ?", entry["id"])
        assert json.loads(doc)[name] == 2**53 + 1


# --- headers and tokens ---------------------------------------------------------------------------

DATES = r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,6} \d{1,3}:\d{1,3}:\d{1,3} ([A-Z]{3}|[+-]\d{1,12})"
HEADERS = (
    st.text(max_size=30)
    | st.from_regex(DATES, fullmatch=True)
    | st.sampled_from(
        ["1" * 401, "9" * 5000, "-1", "1e400", "NaN", "inf", "\u0663", " 5", "Mon, 01 Jan 10000 00:00:00 GMT"]
    )
)


@given(HEADERS, st.sampled_from([0.0, 1750167607.0, 253402300799.0]))
def test_any_header_is_a_number_or_none(text: str, now: float) -> None:
    """Totals, dates and pauses of an answer are finite numbers of 64 bits, or as if they were not said."""
    pause = rate_limits.requested_pause([text], [text], now)
    assert pause is None or math.isfinite(pause)
    for number in (
        headers.agreed_number([text]),
        headers.record_count([f"items 0-1/{text}"]),
        answers.parse_date(text),
    ):
        assert number is None or 0 <= number < 2**63


def test_any_life_of_a_token_is_bounded() -> None:
    """Whatever the API says of how long a token lasts, it is refused or used for a second to a day."""
    for kind, value in VALUES.items():
        body = f'{{"access_token": "x", "expires_in": {value}}}'.encode()
        with contextlib.suppress(msgspec.DecodeError):
            lasts = msgspec.json.decode(body, type=auth.TokenAnswer, strict=False).lifetime()
            assert 1 <= lasts <= 86400, kind


# --- commands -------------------------------------------------------------------------------------

ADDRESSES = [
    *(f"oneweb/bridge/polling/{call}/{verb}" for call in ("user_terminals", "all", "x") for verb in ("set", "poll")),
    *(f"oneweb/bridge/polling/all/{name}/set" for name in ("enabled", "interval")),
    *(f"oneweb/bridge/request/{name}" for name in (*commands.REQUESTS, "x")),
]
MEMBERS = ("id", "enabled", "interval", "source", "what", "call", "since", "until", "imei", "product_id", "report", "x")


def obey(topic: str, payload: bytes) -> None:
    """Everything that is made of a command before it is obeyed; only BadCommand may come of it."""
    address = parse_command_topic(topic, "oneweb")
    assert address is not None
    commands.is_no_command(address, payload, retain=True)
    sentence, command = "", None
    try:
        command = commands.decode_command(address, payload)
    except commands.BadCommand as bad:
        sentence = str(bad)
    if isinstance(command, commands.Request):
        sentence = check_span(command)
    if command is not None:
        commands.command_identity(payload, command.id)
        encode(command)
    assert len(sentence) < 1000


def check_span(request: commands.Request) -> str:
    """Fails for a span beyond 64 bits; the sentence about one that is none."""
    try:
        begin, end = commands.time_range(request.since, request.until, 1750167607.0)
    except ValueError as error:
        return str(error)
    assert 0 <= begin < end < 2**63
    return ""


@pytest.mark.parametrize("topic", ADDRESSES)
def test_any_value_in_any_member_of_a_command_is_a_command_or_a_sentence(topic: str) -> None:
    """A command with any value in any member, or that is nothing but the value, is obeyed or answered."""
    for value in VALUES.values():
        obey(topic, value.encode())
        for member in MEMBERS:
            obey(topic, f'{{"{member}": {value}}}'.encode())


def test_any_value_in_a_head_is_a_head_or_none() -> None:
    """What stands on the head's topic may be anything: a row's number is one that SQLite holds, or none."""
    good = {"journal": '"j"', "instance": '"main"', "seq": "5"}
    for kind, value in VALUES.items():
        for body in (value, *(json_object(good | {member: value}) for member in good)):
            check_head(body, kind)


def check_head(body: str, kind: str) -> None:
    """Fails where a head is read as something that it cannot be."""
    here = heads.Place("oneweb", "main")
    head = heads.read_head(body.encode())
    owner = heads.owner_of(head, here, heads.Identity(journal_id="j"))
    assert owner in ("nobody", "this", "another"), kind
    if head is not None:
        assert len(heads.foreign_sentence(head, "oneweb/bridge/head", here)) < 400, kind
        assert head["seq"] is None or 0 <= head["seq"] < 2**63, kind


def json_object(members: dict[str, str]) -> str:
    """An object of members that are JSON already."""
    return "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"


@given(st.sampled_from(ADDRESSES), st.binary(max_size=200))
def test_any_bytes_are_a_command_or_a_sentence(topic: str, payload: bytes) -> None:
    """Bytes that are no text and no JSON are answered like any other bad command."""
    obey(topic, payload)
    obey(topic, b'{"id": ' + payload + b"}")
    obey(topic, b'{"id": "' + payload + b'"}')
