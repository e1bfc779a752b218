"""Times from outside: believed within bounds, told and left out beyond, and nothing that was remembered stays wrong."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import stamina

from oneweb_bridge.api.answers import parse_date
from oneweb_bridge.api.listing import ReportListing
from oneweb_bridge.decode.bounds import EARLIEST, Bounds
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.records import Alert, KnownSamples
from oneweb_bridge.polling.poll_report import ReportPoll
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.polling.samples import believable
from oneweb_bridge.polling.time_windows import WindowBounds
from oneweb_bridge.simulator.clock import parse_rfc3339
from tests.polls import START, Bench, bench, configured

TERMINALS, SIGNAL, USAGE = "user_terminals", "ut_signal_quality", "usage_consumption"
NOW = round(parse_rfc3339(START) * 1000)
MINUTE, HOUR, DAY, YEAR = 60_000, 3_600_000, 86_400_000, 31_557_600_000
WRONG = [NOW + 11 * MINUTE, NOW + YEAR, NOW + 10 * YEAR, EARLIEST - 1, 0]


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=3, cap=True):
        yield


BESIDE = ({"name": "rsrp", "value": -90.0}, {"name": "rssi", "value": -80.0})
"""What a report has beside the value that a test is about, so that nothing else is told."""


def report(*samples: tuple[str, int, float]) -> str:
    """The answer of a performance report with these samples: id, time, value."""
    ids = list(dict.fromkeys(id for id, _, _ in samples))
    return json.dumps(
        [
            {
                "id": id,
                "measurement": [
                    {"timestamp": rfc3339(ts), "performanceIndicator": [*BESIDE, {"name": "sinr", "value": value}]}
                    for of, ts, value in samples
                    if of == id
                ],
            }
            for id in ids
        ]
    )


async def shown(b: Bench, *samples: tuple[str, int, float], call: str = SIGNAL) -> Any:
    """Polls a report while the API answers with these samples, whatever is asked for."""
    b.sim.fault("status", status=200, body=report(*samples), path="signalQuality")
    try:
        return await b.poll(call)
    finally:
        b.sim.clear_faults()


async def published_samples(b: Bench) -> list[tuple[str, str, int]]:
    """The samples that went out since the last look: topic kind, id and time."""
    return [(row.what, row.id, row.ts) for row in await b.news() if row.what in ("metric", "history")]


def kinds(alerts: Sequence[Any]) -> list[str]:
    return [alert.kind for alert in alerts]


@pytest.mark.parametrize(
    ("ts", "believed"),
    [(EARLIEST - 1, False), (EARLIEST, True), (NOW, True), (NOW + 10 * MINUTE, True), (NOW + 10 * MINUTE + 1, False)],
)
def test_bounds_are_2019_and_a_little_ahead_of_now(ts: int, believed: bool) -> None:
    """Both ends are believed, and nothing beyond them."""
    assert Bounds(NOW + 10 * MINUTE).has(ts) is believed


@pytest.mark.parametrize("wrong", WRONG)
async def test_sample_of_a_time_that_is_not_believed_is_told_and_left_out(wrong: int, tmp_path: Path) -> None:
    """It goes nowhere and is not remembered, its neighbours go out, and the one after it is the newest."""
    async with bench(tmp_path) as b:
        outcome = await shown(b, ("a", NOW - HOUR, 1.0), ("a", wrong, 2.0), ("b", NOW, 3.0))
        assert sorted(await published_samples(b)) == [("metric", "a", NOW - HOUR), ("metric", "b", NOW)]
        assert kinds(outcome.alerts) == ["time_not_believed"]
        assert "1 time of measurement lies" in outcome.alerts[0].message
        remembered = await b.rows("SELECT ts FROM newest UNION SELECT ts FROM seen")
        assert sorted(row[0] for row in remembered) == [NOW - HOUR, NOW]
        outcome = await shown(b, ("a", NOW, 4.0))
        assert await published_samples(b) == [("metric", "a", NOW)]
        assert outcome.alerts == []


async def test_tolerance_is_a_setting(tmp_path: Path) -> None:
    """`api.clock_tolerance` says how far ahead a time may be."""
    async with bench(tmp_path, api={"clock_tolerance": "1d"}) as b:
        await shown(b, ("a", NOW + DAY, 1.0), ("b", NOW + DAY + 1, 1.0))
        assert await published_samples(b) == [("metric", "a", NOW + DAY)]


@pytest.mark.parametrize("skew", [-YEAR, -30 * DAY, DAY])
async def test_clock_of_the_host_that_is_wrong_keeps_nothing_out(skew: int, tmp_path: Path) -> None:
    """A machine that starts years behind believes what the API says by its own clock."""
    async with bench(tmp_path) as b:
        b.skew = skew / 1000
        outcome = await shown(b, ("a", NOW, 1.0))
        assert await published_samples(b) == [("metric", "a", NOW)]
        assert outcome.alerts == []


@pytest.mark.parametrize("skew", [-YEAR, YEAR])
async def test_clock_of_the_api_that_is_wrong_keeps_nothing_out(
    skew: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the API's clock is a year off and the host's is right, samples go out; right again, nothing is missing."""
    async with bench(tmp_path) as b:
        with monkeypatch.context() as wrong:
            wrong.setattr("oneweb_bridge.api.client.parse_date", lambda _: NOW + skew)
            await b.api.hello()
            await shown(b, ("a", NOW, 1.0))
            assert await published_samples(b) == [("metric", "a", NOW)]
            await b.store.progress.save((await b.runner.poll(SIGNAL)).progress)
        await b.later(HOUR / 1000)
        await shown(b, ("a", NOW + HOUR - MINUTE, 1.0), ("a", NOW + HOUR, 2.0))
        assert {entry for entry in await published_samples(b) if entry[1] == "a"} >= {
            ("history", "a", NOW + HOUR - MINUTE),
            ("metric", "a", NOW + HOUR),
        }


@pytest.mark.parametrize("wrong", WRONG)
async def test_terminal_that_is_last_seen_in_another_decade_is_told(wrong: int, tmp_path: Path) -> None:
    """Its record has no such field, its presence says nothing, and goes on as soon as the source is right again."""
    async with bench(tmp_path) as b:
        imei = b.ids("terminals")[0]
        b.sim.fleet("set", id=imei, attributes={"lastSeenDate": rfc3339(wrong)})
        outcome = await b.poll(TERMINALS)
        assert kinds(outcome.alerts) == ["time_not_believed"]
        assert "last_seen" not in await b.record("terminal", imei)
        assert imei not in {row.id for row in await b.news() if row.name == "presence"}
        b.sim.fleet("set", id=imei, attributes={"lastSeenDate": rfc3339(NOW + MINUTE)})
        await b.later(MINUTE / 1000)
        await b.poll(TERMINALS)
        assert [row.ts for row in await b.news() if row.name == "presence" and row.id == imei] == [NOW + MINUTE]


async def test_plain_dates_may_lie_anywhere(tmp_path: Path) -> None:
    """The end of a contract lies in the future and an activation long ago: they are published as they are."""
    dates = {"startDate": "2005-01-01T00:00:00Z", "terminationDate": "2045-12-31T00:00:00Z"}
    async with bench(tmp_path) as b:
        product = b.ids("products")[0]
        b.sim.fleet("set", id=product, attributes=dates)
        outcome = await b.poll("products")
        assert outcome.alerts == []
        record = await b.record("product", product)
        assert (record["start_date"], record["termination_date"]) == tuple(dates.values())


async def test_what_a_wrong_time_has_left_in_the_database_heals(tmp_path: Path) -> None:
    """Newest sample, what was seen, window and horizon that lie in 2036 hold nothing up any more."""
    async with bench(tmp_path) as b:
        await shown(b, ("a", NOW - HOUR, 1.0), ("a", NOW, 2.0))
        poisoned = NOW + 10 * YEAR
        await b.store._connections._writer.execute("UPDATE newest SET ts = ?", (poisoned,))
        await b.store._connections._writer.execute("INSERT INTO seen SELECT stream, ?, 1 FROM newest", (poisoned,))
        await b.store._connections._writer.execute("UPDATE call SET window_end = ?, horizon = ?", (poisoned, poisoned))
        await b.news()
        await b.later(HOUR / 1000)
        samples = [("a", NOW - HOUR, 1.0), ("a", NOW, 2.0), ("a", NOW + HOUR // 2, 3.0), ("a", NOW + HOUR, 4.0)]
        await shown(b, *samples)
        assert await published_samples(b) == [("history", "a", NOW + HOUR // 2), ("metric", "a", NOW + HOUR)]
        memory = await b.store.progress.load(SIGNAL)
        assert memory.window_end <= NOW + HOUR + MINUTE
        assert memory.horizon <= NOW + HOUR


async def test_clocks_that_are_set_during_a_poll_publish_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a poll let in is compared with all that was published before, also when both clocks go back meanwhile."""
    listing_of = ReportPoll._listing
    before, after = [("a", NOW - HOUR, 1.0), ("a", NOW, 2.0)], ("a", NOW + MINUTE, 3.0)
    async with bench(tmp_path) as b:

        def set_clocks(poll: ReportPoll, window: WindowBounds) -> ReportListing:
            listing = listing_of(poll, window)
            monkeypatch.setattr(b.api, "bounds", lambda: Bounds(NOW - 2 * HOUR))
            return listing

        await shown(b, *before)
        await b.news()
        monkeypatch.setattr(ReportPoll, "_listing", set_clocks)
        await shown(b, *before, after)
        assert await published_samples(b) == [("metric", "a", NOW + MINUTE)]


def test_what_is_known_is_what_is_believed() -> None:
    """Of a sample that is ahead of what is believed nothing is known but those before it."""
    assert believable(KnownSamples(9, 3, {5: 2, 9: 3}), 9) == KnownSamples(9, 3, {5: 2, 9: 3})
    assert believable(KnownSamples(9, 3, {4: 1, 5: 2, 9: 3}), 8) == KnownSamples(5, 2, {4: 1, 5: 2})
    assert believable(KnownSamples(9, 3, {9: 3}), 8) == KnownSamples(-1, 0, {})


@pytest.mark.parametrize("step", [-5 * MINUTE, -HOUR, -DAY, -10 * YEAR, HOUR, DAY])
async def test_sample_without_a_time_never_goes_back(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its topic goes on also when the clocks were set back after the sample before it."""
    body = json.dumps([{"id": "a", "measurement": [{"performanceIndicator": [{"name": "sinr", "value": 1}]}]}])
    async with bench(tmp_path) as b:
        for turn in range(2):
            b.sim.fault("status", status=200, body=body.replace("1}", f"{turn}}}"), path="signalQuality")
            await b.poll(SIGNAL)
            assert [what for what, _, _ in await published_samples(b)] == ["metric"]
            b.sim.clear_faults()
            b.skew += step / 1000
            monkeypatch.setattr(b.api, "now", lambda: NOW + step)


async def test_time_that_is_not_believed_is_alerted_once(tmp_path: Path) -> None:
    """However often it comes, one alert of the call says so."""
    async with bench(tmp_path) as b:
        poller = Poller(b.runner, b.store, b.api, configured(b.sim.url), b.clock)
        await poller.load()
        b.sim.fault("status", status=200, body=report(("a", NOW + YEAR, 1.0)), path="signalQuality")
        for _ in range(3):
            await poller._poll(poller.calls[SIGNAL])
        alerts = [row.body for row in await b.news() if row.what == "alert"]
        assert [(alert["kind"], alert["call"]) for alert in alerts] == [("time_not_believed", SIGNAL)]


async def test_alert_of_several_windows_of_one_poll_is_published_once(tmp_path: Path) -> None:
    """The first sentence of a kind counts; what tells two of them apart, `about`, keeps both."""
    async with bench(tmp_path) as b:
        poller = Poller(b.runner, b.store, b.api, configured(b.sim.url), b.clock)
        await poller.load()
        alerts = [
            Alert(kind="time_not_believed", call=SIGNAL, message="first"),
            Alert(kind="time_not_believed", call=SIGNAL, message="second"),
            Alert(kind="value_unreadable", call=SIGNAL, about="a", message="third"),
            Alert(kind="value_unreadable", call=SIGNAL, about="b", message="fourth"),
        ]
        await poller._states.store_end_of_poll(poller.calls[SIGNAL], 60.0, alerts, is_whole=True)
        messages = [row.body["message"] for row in await b.news() if row.what == "alert"]
        assert messages == ["first", "third", "fourth"]


@pytest.mark.parametrize("date", ["Thu, 01 Jan 1970 00:00:00 GMT", "Mon, 31 Dec 2018 23:59:59 GMT", "", None])
def test_date_of_an_answer_from_before_2019_tells_no_time(date: str | None) -> None:
    """A server that has lost its clock moves no window: the host's own time is used."""
    assert parse_date(date) is None
    assert parse_date("Tue, 01 Jan 2019 00:00:00 GMT") == EARLIEST
