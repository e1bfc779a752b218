"""Bad answers: each has its reason in a sentence, changes nothing that is known, and leaves nothing behind.

Every case is a story: a whole fleet is known, something really changes, the answer that would tell it is
bad, and the next good one tells exactly what has changed.
"""

import asyncio
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import stamina
from aiohttp import web

from oneweb_bridge import app
from oneweb_bridge.api.errors import ApiError, BadAnswer, NotFound, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.decode.fields import _CONVERTERS
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.simulator import Shape
from oneweb_bridge.simulator.options import Options
from oneweb_bridge.simulator.server import serve
from tests.polls import RECORDS, START, Bench, JournalRow, bench, configured
from tests.test_api import serving

TERMINALS, SIGNAL = "user_terminals", "ut_signal_quality"
PATHS = {TERMINALS: "/userTerminal?", SIGNAL: "/signalQuality?"}
PAGED = {call: {"page": {"limit": 3}} for call in PATHS}


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


class Bad(msgspec.Struct, frozen=True):
    """A fault of the simulator, and what must come of it."""

    kind: str
    error: type[ApiError]
    reason: str
    members: dict[str, Any] = {}


def status(code: int, error: type[ApiError], reason: str, **members: Any) -> Bad:
    return Bad("status", error, reason, {"status": code, **members})


def body(text: str, reason: str) -> Bad:
    """An answer 200 with a body of our own."""
    return status(200, BadAnswer, reason, body=text)


CUT_OFF, NO_JSON, KEYLESS = "the answer was cut off", "not valid JSON", "none of 1 records has a readable id"

BAD = [
    Bad("html", BadAnswer, "a web page instead of JSON"),
    Bad("empty_body", BadAnswer, "the answer is empty, expected a JSON list"),
    Bad("object", BadAnswer, "an object without a list in items, data or results"),
    Bad("nan", BadAnswer, NO_JSON),
    # Newer versions of Python decode any depth, and the record has no key then.
    Bad("deep", BadAnswer, f"{NO_JSON}|{KEYLESS}", {"depth": 100_000}),
    Bad("not_utf8", BadAnswer, "not UTF-8"),
    Bad("redirect", BadAnswer, "redirect to another place"),
    Bad("gzip_bomb", BadAnswer, "more than api.max_body", {"megabytes": 100}),
    Bad("big", BadAnswer, "more than api.max_body", {"megabytes": 30}),
    Bad("hang", Unavailable, "no answer in time", {"seconds": 60}),
    Bad("page_repeat", BadAnswer, "the listing is not complete: page 2 shows '.*' again"),
    Bad("page_missing", BadAnswer, "the server says 8 records and showed 3"),
    Bad("total_changes", BadAnswer, "the total changed from 8 to 9"),
    Bad("drop_items", BadAnswer, "the listing is not complete"),
    Bad("missing_key", BadAnswer, "none of 3 records has a readable id", {"share": 1.0}),
    *(Bad("truncated", BadAnswer, f"{NO_JSON}|is empty", {"bytes": n}) for n in (0, 1, 2, 40, 500, 1500)),
    *(Bad("cut", Unavailable, CUT_OFF, {"bytes": n, "length": "content"}) for n in (0, 1, 500)),
    *(Bad("cut", Unavailable, CUT_OFF, {"bytes": n, "length": "chunked"}) for n in (1, 500)),
    *(Bad("cut", BadAnswer, f"{NO_JSON}|is empty", {"bytes": n, "length": "none"}) for n in (0, 1, 500)),
    Bad("cut", BadAnswer, NO_JSON, {"bytes": 500, "length": "none", "after": 2}),
    body('"text"', "expected a JSON list"),
    body("17", "expected a JSON list"),
    body('{"items": null, "total": 8}', "the list 'items' is empty, but 'total' says that there are 8 records"),
    body("[7, null]", "none of 2 records has a readable id"),
    body('[{"id": 1e999}]', KEYLESS),
    body(f'[{{"id": {"9" * 5000}}}]', KEYLESS),
    body('[{"id": "\\ud800"}]', KEYLESS),
    body('[{"id": ""}]', KEYLESS),
    body("[{]", NO_JSON),
    status(202, BadAnswer, "still being made", body="{}"),
    status(400, BadAnswer, "answered 400"),
    status(401, Unauthorized, "answered 401"),
    status(401, Unauthorized, "answered 401", after=1),
    status(403, Unauthorized, "answered 403", after=2),
    status(404, NotFound, "answered 404"),
    status(429, RateLimited, "answered 429", headers={"Retry-After": "soon"}),
    status(429, RateLimited, "answered 429", after=2),
    status(500, Unavailable, "answered 500"),
    status(503, Unavailable, "answered 503", after=1),
]


def name_of(bad: Bad) -> str:
    return "-".join([bad.kind, *(f"{name}={str(value)[:20]}" for name, value in bad.members.items())])


class Story:
    """A bench on which everything is known, and something has really changed since."""

    def __init__(self, bench: Bench, call: str) -> None:
        self.bench = bench
        self.call = call
        self.fickle = bench.ids("terminals")[2]
        self.known: dict[str, int] = {}

    async def begin(self) -> None:
        await self.bench.poll(*RECORDS, SIGNAL)
        await self.bench.later(1200)
        self.bench.sim.fleet("set_state", id=self.fickle, state="degraded")
        self.known = {row.id: row.ts for row in await self.bench.news() if row.what == "metric"}

    def spoil(self, kind: str, **members: Any) -> None:
        self.bench.sim.fault(kind, path=PATHS[self.call], **members)

    def mend(self) -> None:
        self.bench.sim.clear_faults()
        self.bench.api._host.paused_until = 0.0
        self.bench.api.ask_at_once()

    def is_told(self, news: list[JournalRow]) -> bool:
        """Whether the news is exactly what has changed: one state, or the samples of two periods, each once.

        The window begins before what was known, so older samples, which the first poll did not show, may come too.
        """
        if self.call == TERMINALS:
            return [(row.what, row.id) for row in news if row.what != "metric"] == [("changed", self.fickle)]
        published = [(row.id, row.ts) for row in news]
        newer = [(id, ts) for id, ts in published if ts > self.known[id]]
        return len(published) == len(set(published)) and len(newer) == 2 * len(self.bench.ids("terminals"))


def story_bench(place: Path, kind: str = "", **options: Any) -> Any:
    """A bench for a kind of bad answer: only one that hangs is not waited for."""
    settings = {"timeout": {"read": "200ms" if kind == "hang" else "30s"}, "max_body": "20MB"}
    return bench(place, options, polling=PAGED, api=settings)


@pytest.mark.parametrize("bad", BAD, ids=name_of)
async def test_bad_answer_is_told_and_changes_nothing(bad: Bad, tmp_path: Path) -> None:
    """The error's class and sentence name the reason; nothing known is changed; the next poll tells what is new."""
    async with story_bench(tmp_path, bad.kind) as opened:
        story = Story(opened, TERMINALS)
        await story.begin()
        for call in (TERMINALS, SIGNAL):
            story.call = call
            before = await opened.holdings()
            story.spoil(bad.kind, **bad.members)
            with pytest.raises(bad.error, match=bad.reason) as caught:
                await opened.poll(call)
            assert type(caught.value) is bad.error
            assert "demo-secret" not in str(caught.value)
            assert await opened.holdings() == before
            assert await opened.count_staged() == 0
            assert await opened.news() == []
            story.mend()
            await opened.poll(call)
            assert story.is_told(await opened.news())


@pytest.mark.parametrize(("kind", "reason"), [("endless_next", "read before"), ("foreign_next", "on another server")])
async def test_bad_link_is_not_followed(kind: str, reason: str, tmp_path: Path) -> None:
    """A next page that never ends, or is on another host, makes the listing incomplete; no one else is asked."""
    paging = {"page": {"style": "link_next"}}
    options = {"shape": Shape(paging="link_next"), "default_limit": 3}
    async with bench(tmp_path, options, polling=dict.fromkeys(PATHS, paging)) as opened:
        story = Story(opened, TERMINALS)
        await story.begin()
        before = await opened.holdings()
        story.spoil(kind)
        with pytest.raises(BadAnswer, match=f"the listing is not complete: the next page is .*{reason}"):
            await opened.poll(TERMINALS)
        assert await opened.holdings() == before
        story.mend()
        await opened.poll(TERMINALS)
        assert story.is_told(await opened.news())


async def test_link_that_is_no_address_is_a_bad_answer(tmp_path: Path) -> None:
    """A Link header that nobody can read makes the listing incomplete, and does not end the bridge."""
    async with bench(tmp_path, polling={TERMINALS: {"page": {"style": "link_next"}}}) as opened:
        opened.sim.fault("status", status=200, body="[]", headers={"Link": '<http://[/>; rel="next"'}, count=1)
        with pytest.raises(BadAnswer, match="its Link header cannot be read"):
            await opened.poll(TERMINALS)


async def test_links_in_several_lines_are_followed(tmp_path: Path) -> None:
    """A listing in pages by Link headers, `self` and `next` in a line each, is read to its end."""
    things = [{"id": f"35923517000611{n}", "resourceState": "online"} for n in range(7)]

    async def page(request: web.Request) -> web.StreamResponse:
        start = int(request.query.get("offset", "0"))
        answer = web.json_response(things[start : start + 3])
        answer.headers.add("Link", f'<{request.path_qs}>; rel="self"')
        if start + 3 < len(things):
            answer.headers.add("Link", f'<?offset={start + 3}&fields=id,name>; title="a, b"; rel="Next last"')
        return answer

    async with (
        serving(page) as server,
        bench(tmp_path, polling={TERMINALS: {"page": {"style": "link_next"}}}) as opened,
    ):
        opened.api._settings = msgspec.structs.replace(opened.api._settings, base_url=server.url)
        assert (await opened.poll(TERMINALS)).records == 7


@pytest.mark.parametrize(
    ("page", "headers", "body", "reason"),
    [
        ({"style": "none"}, {"Link": '<?p=2>; rel="next"'}, "[]", "names a next page"),
        ({"style": "link_next"}, {"Link": "<?p=2; rel=next"}, "[]", "its Link header cannot be read"),
        ({"style": "cursor"}, {}, '{"items": [], "next": {"a": 1}}', "neither a text nor a number"),
        ({"style": "cursor", "limit": 1}, {}, '[{"id": "1"}]', "has no place for the cursor 'next'"),
        (
            {"style": "none"},
            {"Content-Range": "items 0-0/9"},
            '[{"id": "1"}]',
            "9 records and showed 1 .*Content-Range",
        ),
        (
            {"style": "none"},
            {"X-Total-Count": "9"},
            '[{"id": "1"}]',
            "header X-Total-Count: where .* set polling.user_terminals.page.total_header",
        ),
    ],
)
async def test_listing_that_proves_no_end_is_incomplete(
    page: dict[str, Any], headers: dict[str, str], body: str, reason: str, tmp_path: Path
) -> None:
    """What says that there is more, or cannot say that there is not, is no whole listing; the sentence says why."""
    async with bench(tmp_path, polling={TERMINALS: {"page": page}}) as opened:
        opened.sim.fault("status", status=200, body=body, headers=headers, count=1)
        with pytest.raises(BadAnswer, match=f"the listing is not complete: .*{reason}"):
            await opened.poll(TERMINALS)


async def test_number_as_cursor_is_followed(tmp_path: Path) -> None:
    """A cursor that is a number goes on as a text does, also behind a mark at the begin of the answer."""
    async with bench(tmp_path, polling={TERMINALS: {"page": {"style": "cursor"}}}) as opened:
        for body in ('\ufeff{"items": [{"id": "1"}], "next": 17}', '{"items": [{"id": "2"}]}'):
            opened.sim.fault("status", status=200, body=body, count=1)
        assert (await opened.poll(TERMINALS)).records == 2


@pytest.mark.parametrize("status", [204, 404])
async def test_status_that_stands_for_an_empty_span(status: int, tmp_path: Path) -> None:
    """204 is a report without samples; where the call says so, 404 is one too, else it is a failure."""
    for settings in ({}, {"empty_status": status}):
        async with bench(tmp_path, polling={SIGNAL: settings}) as opened:
            opened.sim.fault("status", status=status, body="", path=PATHS[SIGNAL])
            if settings or status == 204:
                assert (await opened.poll(SIGNAL)).samples == 0
            else:
                with pytest.raises(BadAnswer, match=f"answered {status}"):
                    await opened.poll(SIGNAL)


@pytest.mark.parametrize("status", [204, 404])
async def test_requested_report_of_an_empty_span_is_empty(status: int, tmp_path: Path) -> None:
    """The answer to the request itself may say so."""
    settings = {"fetch": "request", "empty_status": [404]}
    async with bench(tmp_path, polling={SIGNAL: settings}) as opened:
        opened.sim.fault("status", status=status, body="", count=1)
        assert (await opened.poll(SIGNAL)).samples == 0


async def test_error_that_is_no_text_is_told(tmp_path: Path) -> None:
    """An error whose body is JSON in no encoding is told by its status."""
    async with bench(tmp_path) as opened:

        async def refuse(request: web.Request) -> web.StreamResponse:
            return web.Response(status=400, body=b'{"message": "\xff\xfe"}')

        async with serving(refuse) as server:
            opened.api._settings = msgspec.structs.replace(opened.api._settings, base_url=server.url)
            with pytest.raises(BadAnswer, match=r"answered 400$"):
                await opened.poll(TERMINALS)


async def test_place_of_a_requested_report_that_is_no_address_is_a_bad_answer(tmp_path: Path) -> None:
    """A Location that nobody can read is told, and does not end the bridge."""
    async with bench(tmp_path, polling={SIGNAL: {"fetch": "request"}}) as opened:
        opened.sim.fault("status", status=202, body="{}", headers={"Location": "http://["}, count=1)
        with pytest.raises(BadAnswer, match="the requested report has no readable address"):
            await opened.poll(SIGNAL)


async def test_place_of_a_requested_report_on_another_server_is_not_asked(tmp_path: Path) -> None:
    """A Location on another server is told, because asking there would hand out the credentials."""
    async with bench(tmp_path, polling={SIGNAL: {"fetch": "request"}}) as opened:
        opened.sim.fault("status", status=202, body="{}", headers={"Location": "http://127.0.0.2:9/x"}, count=1)
        with pytest.raises(BadAnswer, match="the requested report is on another server"):
            await opened.poll(SIGNAL)


@pytest.mark.parametrize("call", [TERMINALS, SIGNAL])
async def test_trickle_is_ended_by_the_deadline(call: str, tmp_path: Path) -> None:
    """A listing that comes by drops ends with the deadline of the poll, and leaves nothing staged."""
    async with story_bench(tmp_path) as opened:
        story = Story(opened, call)
        await story.begin()
        before = await opened.holdings()
        story.spoil("slow", rate=500.0, after=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.4):
                await opened.poll(call)
        assert await opened.holdings() == before
        assert await opened.count_staged() == 0
        story.mend()
        await opened.poll(call)
        assert story.is_told(await opened.news())


@pytest.mark.parametrize("call", [TERMINALS, SIGNAL])
@pytest.mark.parametrize(
    ("kind", "members"),
    [
        ("bom", {}),
        ("content_type", {"value": "application/octet-stream"}),
        ("number_imei", {"share": 1.0}),
        ("unknown_attributes", {}),
        ("status", {"status": 503, "count": 2}),
        ("cut", {"count": 1}),
        ("hang", {"count": 1, "seconds": 1}),
    ],
)
async def test_harmless_oddity_is_accepted(kind: str, members: dict[str, Any], call: str, tmp_path: Path) -> None:
    """A BOM, another type, numbers for IMEIs, unknown attributes, a server that recovers: the news is the news."""
    async with story_bench(tmp_path, kind) as opened:
        story = Story(opened, call)
        await story.begin()
        story.spoil(kind, **members)
        outcome = await opened.poll(call)
        # That ids are numbers from now on is told, as any change of the shape is.
        assert {alert.kind for alert in outcome.alerts} == ({"shape_changed"} if kind == "number_imei" else set())
        assert story.is_told([row for row in await opened.news() if row.what != "alert"])
        story.mend()
        await opened.poll(call)
        assert await opened.news() == []


async def test_empty_list_is_held(tmp_path: Path) -> None:
    """[] where records were known removes nothing, however often it comes and however late."""
    async with story_bench(tmp_path) as opened:
        story = Story(opened, TERMINALS)
        await story.begin()
        before = await opened.holdings()
        story.spoil("empty_list")
        for _ in range(4):
            outcome = await opened.poll(TERMINALS)
            assert "the listing is empty" in outcome.held
            await opened.later(86_400)
        assert await opened.holdings() == before
        assert await opened.news() == []
        story.mend()
        await opened.poll(TERMINALS)
        assert story.is_told(await opened.news())


async def test_records_without_key_are_set_aside(tmp_path: Path) -> None:
    """Where some records have no key, the others count, an alert says how many, and none is taken for missing."""
    async with story_bench(tmp_path) as opened:
        story = Story(opened, TERMINALS)
        await story.begin()
        before = await opened.holdings()
        story.spoil("missing_key", share=0.6)
        for _ in range(4):
            outcome = await opened.poll(TERMINALS)
            await opened.later(600)
            assert [alert.kind for alert in outcome.alerts] == ["set_aside"]
            assert "records could not be read" in outcome.alerts[0].message
        after = await opened.holdings()
        assert after["removed"] == after["missing"] == []
        assert {row[:2] for row in after["record"]} == {row[:2] for row in before["record"]}
        story.mend()
        await opened.poll(TERMINALS)
        assert [id for what, id in await opened.events() if what == "changed"] in ([story.fickle], [])


@pytest.mark.parametrize("value", ["1e999", "-1e999", "9" * 5000])
async def test_record_with_a_value_nobody_can_read_is_set_aside(value: str, tmp_path: Path) -> None:
    """A number without bounds in one record costs that record alone."""
    async with story_bench(tmp_path) as opened:
        story = Story(opened, TERMINALS)
        await story.begin()
        first = opened.sim.truth("terminals", 0, 1)[0]
        before = await opened.record("terminal", first["id"])
        text = json.dumps({**first, "newName": "VALUE"}).replace('"VALUE"', value)
        story.spoil("status", status=200, body=f"[{text}]", count=1)
        outcome = await opened.poll(TERMINALS)
        assert [(alert.kind, alert.message[:9]) for alert in outcome.alerts] == [("set_aside", "1 record ")]
        assert story.is_told(await opened.news())
        assert await opened.record("terminal", first["id"]) == before
        story.mend()
        await opened.poll(TERMINALS)
        assert await opened.events() == []


async def test_half_a_character_does_not_cost_the_listing(tmp_path: Path) -> None:
    """Half a surrogate pair in a name is shown as U+FFFD; the other records, and other escapes, are as they are."""
    async with story_bench(tmp_path) as opened:
        story = Story(opened, TERMINALS)
        await story.begin()
        first = opened.sim.truth("terminals", 0, 1)[0]
        text = json.dumps({**first, "name": "NAME"}).replace("NAME", r"a\ud800 \ud83d\ude00 \\ud800")
        story.spoil("status", status=200, body=f"[{text}]", count=1)
        assert (await opened.poll(TERMINALS)).alerts == []
        assert (await opened.record("terminal", first["id"]))["name"] == "a\ufffd \U0001f600 \\ud800"
        assert (await opened.record("terminal", story.fickle))["state"] == "degraded"


async def test_null_location_is_a_position_not_known(tmp_path: Path) -> None:
    """A location that is null takes the position away, as a change to null; its return is a change too."""
    async with story_bench(tmp_path) as opened:
        story = Story(opened, TERMINALS)
        # Of more records at once it would be held.
        opened.configure(removal={"hold_above": {"count": 8}})
        await story.begin()
        story.spoil("null_location", share=1.0)
        await opened.poll(TERMINALS)
        gone = [row.body["changed"] for row in await opened.news() if row.what == "changed"]
        assert len(gone) == 8
        assert all(change["latitude"]["to"] is None for change in gone)
        story.mend()
        await opened.poll(TERMINALS)
        back = [row.body["changed"] for row in await opened.news() if row.what == "changed"]
        assert [change["latitude"]["to"] for change in back] == [change["latitude"]["from"] for change in gone]


async def test_unknown_indicator_is_passed_on(tmp_path: Path) -> None:
    """An indicator that nobody told the bridge of comes under its own name with its unit."""
    async with story_bench(tmp_path) as opened:
        story = Story(opened, SIGNAL)
        await story.begin()
        story.spoil("unknown_indicator", share=1.0)
        await opened.poll(SIGNAL)
        news = await opened.news()
        assert news
        assert all(21.5 in row.body.values() for row in news)


async def test_body_beyond_the_default_limit_is_refused(tmp_path: Path) -> None:
    """80 MB are more than the 64 MB of the default, and the sentence names the key."""
    async with bench(tmp_path) as opened:
        opened.sim.fault("big", megabytes=80, path=PATHS[TERMINALS])
        with pytest.raises(BadAnswer, match=r"more than api\.max_body, 64000000 bytes"):
            await opened.poll(TERMINALS)


async def test_state_of_a_call_says_the_reason_and_recovers(tmp_path: Path) -> None:
    """Through the poller: the call is failed with the sentence, an alert is stored, and the next poll is ok."""
    async with serve(Options(terminals=8, seed=2, start=START, speed=0.0, liveliness=0.0)) as simulator:
        simulator.fault("html", path=PATHS[TERMINALS], count=1)
        config = configured(simulator.url, state={"path": str(tmp_path / "bridge.db")})
        async with app.open_bridge(config) as parts, asyncio.timeout(20):
            running = asyncio.create_task(parts.poller.run())
            failed, _ = parts.poller.request_poll(TERMINALS)
            bad = await failed
            mended, _ = parts.poller.request_poll(TERMINALS)
            good = await mended
            running.cancel()
            rows = await parts.store._connections.rows(
                "SELECT body FROM journal WHERE what IN ('alert', 'state') AND CAST(body AS TEXT) LIKE ?",
                ("%web page%",),
            )
    assert (bad.state.status, bad.state.records) == ("failed", 0)
    assert "a web page instead of JSON" in (bad.error or "")
    assert (good.state.status, good.state.error, good.state.records) == ("ok", None, 8)
    assert {json.loads(row[0]).get("kind") for row in rows} == {None, "bad_answer"}


async def test_value_nobody_can_read_is_not_known_and_told_once(tmp_path: Path) -> None:
    """A date of the year 1 does not leave the old one standing: it is absent, an event says so, and one alert."""
    changes = {"polling": {"products": {"page": {"style": "none"}}}}
    async with bench(tmp_path, **changes) as opened:
        good = {"id": "SC-1", "name": "n", "terminationDate": "2030-01-01T00:00:00Z"}
        bad = good | {"terminationDate": "0001-01-01T00:00:00Z"}
        poller = Poller(opened.runner, opened.store, opened.api, configured(opened.sim.url, **changes), opened.clock)
        await poller.load()
        published = []
        for record, name in ((good, "n"), (bad, "n"), (bad, "n"), (bad, "m"), (good, "m"), (bad, "m")):
            opened.sim.fault("status", status=200, body=json.dumps([record | {"name": name}]), count=1)
            await poller._poll(poller.calls["products"])
            news = [row for row in await opened.news() if row.what == "changed" or row.name == "value_unreadable"]
            published.append(
                [(row.name or row.what, row.body.get("changed", {}).get("termination_date")) for row in news]
            )
        lost, back = {"from": good["terminationDate"], "to": None}, {"from": None, "to": good["terminationDate"]}
        assert published == [
            [],
            [("changed", lost), ("value_unreadable", None)],
            [],
            [("changed", None)],
            [("changed", back)],
            [("changed", lost), ("value_unreadable", None)],
        ]
        opened.sim.fault("status", status=200, body=json.dumps([bad | {"name": "m"}]), count=1)
        outcome = await opened.runner.poll("products")
        assert outcome.problems.values == {"termination_date": 1}
        assert [alert.message for alert in outcome.alerts if alert.kind == "value_unreadable"] == [
            (
                "termination_date could not be read in 1 record and counts as not known there; "
                "the first: SC-1: expected a time between 1970 and 9999"
            )
        ]


async def test_products_in_another_order_are_no_change(tmp_path: Path) -> None:
    """The products of a terminal are a set: whatever order the API lists them in, there is one event, the first."""
    async with bench(tmp_path, polling={TERMINALS: {"page": {"style": "none"}}}) as opened:
        for order in ("cab", "abc", "bca", "cba"):
            terminal = {"id": "1", "product": [{"id": id} for id in order]}
            opened.sim.fault("status", status=200, body=json.dumps([terminal]), count=1)
            await opened.poll(TERMINALS)
        assert await opened.events() == [("added", "1")]
        assert (await opened.record("terminal", "1"))["product_ids"] == ["a", "b", "c"]


async def test_record_that_breaks_its_decoder_is_set_aside_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody imagined costs one record: told with call, id and field, with a traceback at debug level."""

    def broken(value: object) -> str | None:
        if value == "broken":
            raise ZeroDivisionError("nobody imagined this")
        return None if value is None else str(value)

    monkeypatch.setitem(_CONVERTERS, "text", broken)
    caplog.set_level("DEBUG", "oneweb_bridge.intake")
    async with bench(tmp_path, polling={"sites": {"page": {"style": "none"}}}) as opened:
        body = json.dumps([{"id": "S-1", "name": "n"}, {"id": "S-2", "name": "broken"}])
        opened.sim.fault("status", status=200, body=body, count=1)
        outcome = await opened.poll("sites")
        assert await opened.events() == [("added", "S-1")]
        assert outcome.problems.set_aside == 1
        assert [(alert.kind, alert.call) for alert in outcome.alerts] == [("set_aside", "sites")]
        assert "the first: S-2: name: ZeroDivisionError: nobody imagined this" in outcome.alerts[0].message
    (record,) = [record for record in caplog.records if record.name == "oneweb_bridge.intake"]
    assert record.levelname == "DEBUG"
    assert "sites" in record.getMessage()
    assert "S-2" in record.getMessage()
    assert "ZeroDivisionError" in "".join(traceback.format_exception(record.exc_info[1]))  # type: ignore[index]


async def test_reload_changes_how_many_calls_poll_at_once(tmp_path: Path) -> None:
    """As many polls run at a time as requests may be in flight, also after this was read again."""
    state = {"path": str(tmp_path / "bridge.db")}
    async with app.open_bridge(configured("http://127.0.0.1:9", state=state)) as parts:
        changed = configured("http://127.0.0.1:9", state=state, api={"rate_limit": {"max_in_flight": 3}})
        await parts.poller.reconfigure(changed)
        assert parts.poller._permits._free == 3


async def test_call_of_a_failing_host_waits_as_long_as_the_host_is_left_alone(tmp_path: Path) -> None:
    """A poll that was not made because the host fails comes when the host is asked again, not sooner."""
    config = configured("http://127.0.0.1:9", state={"path": str(tmp_path / "bridge.db")})
    async with app.open_bridge(config) as parts:
        runtime = parts.poller.calls[TERMINALS]
        assert parts.poller._cycle._reaction(runtime, Unavailable("it failed before", 28.0))[1] >= 28.0
