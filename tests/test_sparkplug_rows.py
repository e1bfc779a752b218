"""What becomes of rows of the journal: live or history, births when parts change, quality. With a real broker."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiomqtt
import msgspec
import pytest

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import (
    Batch,
    DecodedRecord,
    Entry,
    KnownSamples,
    RecordKind,
    RecordWrite,
    RowType,
    Sample,
)
from oneweb_bridge.polling import diff, samples
from oneweb_bridge.sparkplug import api_watch, outlet, rows, session, shared, wire
from oneweb_bridge.sparkplug import host as primary_host
from oneweb_bridge.sparkplug import sparkplug_b_pb2 as pb
from oneweb_bridge.sparkplug.births import Births
from oneweb_bridge.sparkplug.edge_node import EdgeMessage
from oneweb_bridge.sparkplug.fleet import Fleet
from oneweb_bridge.sparkplug.payload import GOOD, STALE
from oneweb_bridge.sparkplug.shared import EdgeCallbacks
from oneweb_bridge.sparkplug.wire import EdgeLink
from oneweb_bridge.store import database, store
from oneweb_bridge.store.edge_tables import open_edge_tables
from tests import harness
from tests.cancelling import cancel_until_done
from tests.test_sparkplug_outlet import EDGE, Host, listening, value_of

NOW = 1_750_000_000_000


class Stage(msgspec.Struct):
    """A database, and the outlet that reads it."""

    path: Path
    port: int
    db: store.Store
    host: Host
    config: Config
    is_connected: bool = True
    successes: dict[str, int] = {}
    alerts: list[str] = []
    past: dict[str, KnownSamples] = {}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[outlet.Outlet]:
        """The outlet while the block runs; it ends as with SIGTERM."""

        async def alert(_kind: str, sentence: str) -> None:
            self.alerts.append(sentence)

        callbacks = EdgeCallbacks(
            config=lambda: self.config,
            alert=alert,
            submit=lambda *_: None,
            is_api_connected=lambda: self.is_connected,
            poll_successes=lambda: self.successes,
        )
        async with outlet.open_outlet(self.path, self.db.growth, callbacks, SYSTEM, "1") as made:
            task = asyncio.create_task(made.run())
            try:
                yield made
            finally:
                await cancel_until_done(task)
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    async def list_record(self, kind: RecordKind, id: str, ts: int = NOW, **fields: Any) -> None:
        """A listing has a record."""
        before = await self.db.records.load(kind, [id])
        rule = diff.CompareRule(kind=kind, now=ts)
        listed = [diff.ListedRecord(DecodedRecord(kind, id, fields), b"")]
        await self.db.commit(diff.compare(rule, before, listed, {}))

    async def terminal(self, imei: str, ts: int = NOW, **fields: Any) -> None:
        await self.list_record("terminal", imei, ts, imei=imei, **fields)

    async def product(self, id: str, ts: int = NOW, **fields: Any) -> None:
        await self.list_record("product", id, ts, product_id=id, **fields)

    async def remove(self, kind: RecordKind, id: str) -> None:
        """A record is gone."""
        await self.db.commit(diff.remove(kind, await self.db.records.load(kind, [id]), {}, NOW))

    async def measure(self, imei: str, *values: tuple[int, float], **more: float) -> None:
        """An answer of the report of signal quality."""
        context = samples.SampleContext(
            entity="terminal", past=self.past, latest={imei: max(ts for ts, _ in values)}, now=NOW
        )
        listed = [Sample("signal_quality", imei, ts, {"sinr_db": value, **more}) for ts, value in values]
        await self.db.commit(samples.batch_new_samples(listed, context))

    async def until_live(self, device: str, value: Any, name: str = "Signal/SINR") -> None:
        """Until a live value is this."""
        await self.host.until(lambda: self.host.live(device, name) == value)

    async def until_saved(self) -> None:
        """Until the place in the journal is behind every row: it moves after the broker's answer to what was heard."""
        async with open_edge_tables(self.path) as tables, asyncio.timeout(20):
            while await tables.cursor(1) != await tables.head():
                await asyncio.sleep(0.02)

    def history(self, device: str, name: str = "Signal/SINR") -> list[tuple[int, Any]]:
        """Times and values that came as history."""
        return [
            (metric.timestamp, value_of(metric))
            for message in self.host.of("DDATA", device=device)
            for metric in message.named(name)
            if metric.is_historical
        ]


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """With the terminal T, its product P and one sample."""
    port, path = mosquitto.free_port(), tmp_path / "bridge.db"
    text = f"sparkplug: {{enabled: true, devices_per_edge_node: 2}}\nmqtt: {{port: {port}, host: 127.0.0.1}}"
    async with mosquitto.run_mosquitto(port), store.open_store(path) as db, listening(port) as host:
        made = Stage(path, port, db, host, parse(text, {}))
        await made.terminal("T", state="online")
        await made.product("P", imei="T", name="plan")
        await made.measure("T", (NOW, 1.0))
        yield made


async def test_newest_sample_is_live_and_all_others_are_history(stage: Stage) -> None:
    """Late and corrected ones never move the live value; a correction of the newest is both, at its time."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.measure("T", (NOW + 1, 1.5), (NOW + 2, 2.0))
        await stage.until_live("T", 2.0)
        await stage.measure("T", (NOW - 5, 0.5))
        await stage.measure("T", (NOW, 9.0))
        await stage.measure("T", (NOW + 2, 2.5))
        await stage.until_live("T", 2.5)
    assert stage.history("T") == [(NOW + 1, 1.5), (NOW - 5, 0.5), (NOW, 9.0), (NOW + 2, 2.5)]
    live = [
        (metric.timestamp, value_of(metric))
        for message in stage.host.messages
        for metric in message.named("Signal/SINR")
        if not metric.is_historical
    ]
    assert live == [(NOW, 1.0), (NOW + 2, 2.0), (NOW + 2, 2.5)]


async def test_what_came_while_it_was_away_is_history_after_the_births(stage: Stage) -> None:
    """Births have the current values; samples follow as history, oldest first; records with their last state."""
    async with stage.running():
        await stage.until_live("T", 1.0)
    for number in range(1, 4):
        await stage.measure("T", (NOW + number, float(number)))
        await stage.terminal("T", NOW + number, state=f"s{number}")
    start = len(stage.host.messages)
    async with stage.running():
        await stage.host.until(lambda: len(stage.history("T")) == 3)
        await stage.measure("T", (NOW + 9, 9.0))
        await stage.until_live("T", 9.0)
    later = [m for m in stage.host.messages[start:] if m.device == "T"]
    assert [m.verb for m in later] == ["DBIRTH", "DDATA", "DDATA"]
    assert [m.is_history for m in later] == [False, True, False]
    assert [value_of(later[0].named(name)[0]) for name in ("Signal/SINR", "Status/State")] == [3.0, "s3"]
    assert stage.history("T") == [(NOW + 1, 1.0), (NOW + 2, 2.0), (NOW + 3, 3.0)]


async def test_backlog_is_history_oldest_first_over_all_pieces(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Late samples stand before those that came earlier, of each Device; then live data."""
    monkeypatch.setattr(rows, "PAGE_ROWS", 3)
    await stage.terminal("S")
    async with stage.running():
        await stage.until_live("T", 1.0)
    times = [NOW + number for number in (5, 6, 9, 7, 8, 1, 3, 2)]
    for ts in times:
        await stage.measure("T", (ts, float(ts - NOW)))
        await stage.measure("S", (ts, float(ts - NOW)))
    async with stage.running():
        await stage.host.until(lambda: len(stage.history("T")) == len(stage.history("S")) == len(times))
        await stage.measure("T", (NOW + 20, 20.0))
        await stage.until_live("T", 20.0)
    for device in ("T", "S"):
        assert stage.history(device) == [(ts, float(ts - NOW)) for ts in sorted(times)]


@pytest.mark.parametrize("answers", range(4))
async def test_backlog_that_is_cut_off_is_sent_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, answers: int
) -> None:
    """The connection breaks after some pieces, and so does the next one by `kill -9`: the cursor has not moved."""
    monkeypatch.setattr(rows, "PAGE_ROWS", 2)
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.until_saved()
    async with open_edge_tables(stage.path) as tables:
        before = await tables.cursor(1)
    times = [NOW + number for number in (5, 6, 7, 1, 2, 3)]
    for ts in times:
        await stage.measure("T", (ts, float(ts - NOW)))
    confirm, left, is_cut = EdgeLink.confirm, answers, asyncio.Event()

    async def confirm_some(self: EdgeLink) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            is_cut.set()
            raise aiomqtt.MqttError("cut")
        await confirm(self)

    monkeypatch.setattr(EdgeLink, "confirm", confirm_some)
    async with stage.running():
        async with asyncio.timeout(20):
            await is_cut.wait()
    async with open_edge_tables(stage.path) as tables:
        assert await tables.cursor(1) == before
    monkeypatch.setattr(EdgeLink, "confirm", confirm)
    births = len(stage.host.of("NBIRTH"))
    async with stage.running():
        await stage.host.until(lambda: len(stage.host.of("NBIRTH")) > births)
        del stage.host.messages[: stage.host.messages.index(stage.host.of("NBIRTH")[-1])]
        await stage.host.until(lambda: len(stage.history("T")) == len(times))
        assert stage.history("T") == [(ts, float(ts - NOW)) for ts in sorted(times)]


async def test_records_are_reported_by_exception_and_samples_are_not(stage: Stage) -> None:
    """Of a record what changed, at the time of its event; of a sample all, though it says the same as before."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.terminal("T", NOW + 5, state="offline", name="boat")
        await stage.until_live("T", "boat", "Status/Name")
        await stage.measure("T", (NOW + 7, 1.0))
        await stage.host.until(lambda: len(stage.host.of("DDATA", device="T")) == 2)
    record, sample = stage.host.of("DDATA", device="T")
    assert {name: value_of(metric) for name, metric in record.metrics} == {
        "Status/State": "offline",
        "Status/Online": False,
        "Status/Name": "boat",
    }
    assert {metric.timestamp for _, metric in record.metrics} == {NOW + 5}
    assert [(name, metric.is_null) for name, metric in sample.metrics if name != "Signal/SINR"] == []


async def test_product_takes_its_folder_along(stage: Stage) -> None:
    """First a birth of the old Device without it, then one of the new Device with it."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.terminal("S")
        await stage.host.until(lambda: stage.host.of("DBIRTH", device="S"))
        start = len(stage.host.messages)
        await stage.product("P", NOW + 1, imei="S", name="plan")
        await stage.host.until(lambda: len(stage.host.messages) >= start + 2)
    old, new = stage.host.messages[start : start + 2]
    assert [(m.verb, m.device, bool(m.named("Product/P/Plan/Name"))) for m in (old, new)] == [
        ("DBIRTH", "T", False),
        ("DBIRTH", "S", True),
    ]


async def test_removed_terminal_dies_before_its_product_is_born(stage: Stage) -> None:
    """And the product dies when its terminal is back; the place of the dead is free for others."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.remove("terminal", "T")
        await stage.host.until(lambda: stage.host.of("DBIRTH", device="_product-P"))
        await stage.terminal("T", NOW + 1)
        await stage.host.until(lambda: len(stage.host.of("DBIRTH", device="T")) == 2)
        await stage.host.until(lambda: stage.host.of("DDEATH", device="_product-P"))
        order = [(m.verb, m.device) for m in stage.host.messages if m.device and m.verb != "DDATA"]
        assert order == [
            ("DBIRTH", "T"),
            ("DDEATH", "T"),
            ("DBIRTH", "_product-P"),
            ("DDEATH", "_product-P"),
            ("DBIRTH", "T"),
        ]
        await stage.terminal("S")
        await stage.host.until(lambda: stage.host.of("DBIRTH", device="S"))


async def test_devices_stay_on_their_edge_node(stage: Stage) -> None:
    """The third goes to another one; after a restart, and with another limit, all are where they were."""
    async with stage.running():
        # Those that are there at the start are placed by their ids.
        await stage.host.until(lambda: stage.host.of("DBIRTH", EDGE, "T"))
        for imei in ("S", "R"):
            await stage.terminal(imei)
        await stage.host.until(lambda: stage.host.of("DBIRTH", f"{EDGE}-2", "R"))
        await stage.host.until(lambda: stage.host.of("DBIRTH", EDGE, "S"))
    stage.config = msgspec.structs.replace(
        stage.config, sparkplug=msgspec.structs.replace(stage.config.sparkplug, devices_per_edge_node=1)
    )
    async with stage.running() as made:
        await stage.host.until(lambda: len(stage.host.of("DBIRTH", f"{EDGE}-2", "R")) == 2)
        await stage.host.until(lambda: len(stage.host.of("DBIRTH", EDGE, "S")) == 2)
        assert made.outputs() == ("sparkplug-1", "sparkplug-2")
        await stage.terminal("Q")
        await stage.host.until(lambda: stage.host.of("DBIRTH", f"{EDGE}-3", "Q"))


async def test_block_of_its_own_is_another_broker(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    """Sparkplug goes to the broker of `sparkplug.mqtt`, and nowhere else; ids of another case are told once."""
    port = mosquitto.free_port()
    text = f"sparkplug: {{enabled: true, mqtt: {{host: 127.0.0.1, port: {port}, base_topic: unused}}}}"
    stage.config = parse(f"{text}\nmqtt: {{host: 127.0.0.1, port: {stage.port}}}", {})
    for imei in ("s", "S", "r", "R"):
        await stage.terminal(imei)
    async with mosquitto.run_mosquitto(port), listening(port) as other, stage.running():
        await other.until(lambda: {m.device for m in other.of("DBIRTH")} == {"T", "s", "S", "r", "R"})
        await stage.terminal("t")
        await other.until(lambda: other.of("DBIRTH", device="t"))
    assert stage.host.messages == []
    assert sum("differ in case only" in line for line in caplog.messages) == 1


async def test_stored_ids_of_another_case_are_told_after_a_restart(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a new Device and one that was there before, and of products in one Device."""
    async with stage.running():
        await stage.until_live("T", 1.0)
    async with stage.running():
        await stage.terminal("t")
        await stage.host.until(lambda: stage.host.of("DBIRTH", device="t"))
    assert sum("the Devices T and t differ in case only" in line for line in caplog.messages) == 1
    caplog.clear()
    await stage.remove("terminal", "t")
    await stage.product("p", imei="T")
    async with stage.running():
        await stage.until_live("T", "p", "Product/p/Plan/Id")
    assert sum("differ in case only" in line for line in caplog.messages) == 1


async def test_births_say_when_the_state_of_a_call_changed(stage: Stage) -> None:
    """A member that is as it was keeps its time over births, though the state of its call was published again."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        for number, status in enumerate(("ok", "polling", "ok"), 1):
            state = encode({"enabled": True, "interval": 60, "status": status})
            await stage.db.commit(
                Batch(
                    entries=[Entry("call", "ut_traffic", "state", "", NOW + number, state)],
                    writes=[RecordWrite("call", "ut_traffic", state, entry=0)],
                )
            )
            await stage.until_live("", status, "Polling/ut_traffic/Status")
        await stage.host.write({"name": "Node Control/Rebirth", "boolean_value": True})
        await stage.host.until(lambda: len(stage.host.of("NBIRTH")) == 2)
    birth = stage.host.of("NBIRTH")[-1]
    times = [birth.named(f"Polling/ut_traffic/{name}")[0].timestamp for name in ("Enabled", "Interval", "Status")]
    assert times == [NOW + 1, NOW + 1, NOW + 3]


async def test_rebirth_that_is_asked_for_ends_other_data(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many Devices that become stale no more is sent after the request; the births have the quality."""
    monkeypatch.setattr(api_watch, "STALE_AFTER_S", 0.0)
    monkeypatch.setattr(outlet, "LOOK_INTERVAL_S", 0.01)
    monkeypatch.setattr(primary_host, "MIN_REBIRTH_INTERVAL_S", 0.1)
    stage.config = msgspec.structs.replace(
        stage.config, sparkplug=msgspec.structs.replace(stage.config.sparkplug, devices_per_edge_node=20)
    )
    for number in range(9):
        await stage.terminal(f"S{number}")
    tell, count = Births._tell_quality_of, 0

    async def tell_slowly(self: Births, device: str, qualities: dict[str, int]) -> None:
        nonlocal count
        count += 1
        await tell(self, device, qualities)
        if count == 2:
            await stage.host.write({"name": "Node Control/Rebirth", "boolean_value": True})
            async with asyncio.timeout(20):
                while not self._is_interrupted():
                    await asyncio.sleep(0.01)

    monkeypatch.setattr(Births, "_tell_quality_of", tell_slowly)
    async with stage.running():
        await stage.until_live("", True, "API/Connected")
        await stage.host.until(lambda: len({m.device for m in stage.host.of("DBIRTH")}) == 10)
        stage.is_connected = False
        await stage.host.until(lambda: len(stage.host.of("NBIRTH")) == 2)
        await stage.host.until(lambda: len({m.device for m in stage.host.of("DBIRTH")[10:]}) == 10)
    assert len(stage.host.of("DDATA")) == 2
    assert all(STALE in qualities(birth) for birth in stage.host.of("DBIRTH")[10:])


async def test_host_that_leaves_before_the_births_is_left(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its offline comes after it was waited for, and before NBIRTH: the connection ends, and the next one waits."""
    stage.config = msgspec.structs.replace(
        stage.config, sparkplug=msgspec.structs.replace(stage.config.sparkplug, primary_host_id="scada")
    )
    bear = Births.bear_all

    async def bear_late(self: Births) -> None:
        if self._state.host.timestamp == 1:
            await stage.host.say("scada", online=False, timestamp=2)
            async with asyncio.timeout(20):
                while self._state.host.online:
                    await asyncio.sleep(0.01)
        await bear(self)

    monkeypatch.setattr(Births, "bear_all", bear_late)
    await stage.host.say("scada", online=True, timestamp=1)
    async with stage.running():
        await stage.host.until(lambda: stage.host.of("NDEATH"))
        births = len(stage.host.of("NBIRTH"))
        await stage.host.say("scada", online=True, timestamp=3)
        await stage.host.until(lambda: len(stage.host.of("NBIRTH")) > births)
        assert value_of(stage.host.of("NBIRTH")[-1].named("bdSeq")[0]) == 1


async def test_new_component_and_new_indicator_are_born_before_their_data(stage: Stage) -> None:
    """A DBIRTH has them; the values are in it."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.list_record("components", "T", NOW + 1, **{"main/SSM": "5.0"})
        await stage.until_live("T", "5.0", "Components/main/SSM")
        await stage.measure("T", (NOW + 5, 2.0), lost_bytes=7)
        await stage.until_live("T", 7, "Signal/Lost")
        await stage.measure("T", (NOW + 6, 3.0))
        await stage.until_live("T", None, "Signal/Lost")
    births = stage.host.of("DBIRTH", device="T")
    assert len(births) == 3
    assert [bool(birth.named("Signal/Lost")) for birth in births] == [False, False, True]
    async with stage.running():
        await stage.host.until(lambda: len(stage.host.of("DBIRTH", device="T")) == 4)
    component = stage.host.of("DBIRTH", device="T")[-1].named("Components/main/SSM")[0]
    assert (value_of(component), component.timestamp) == ("5.0", NOW + 1)


async def test_history_with_a_new_indicator_is_not_lost(stage: Stage) -> None:
    """The indicator is born, null, and its value follows as history."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.measure("T", (NOW - 5, 2.0), lost_bytes=7)
        await stage.host.until(lambda: stage.history("T", "Signal/Lost"))
    assert stage.history("T", "Signal/Lost") == [(NOW - 5, 7)]
    assert stage.history("T") == [(NOW - 5, 2.0)]
    assert value_of(stage.host.of("DBIRTH", device="T")[-1].named("Signal/Lost")[0]) is None


async def test_values_are_stale_while_the_api_is_away(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value once more with Quality 500, in births too; with 192 after the first poll of its call."""
    monkeypatch.setattr(api_watch, "STALE_AFTER_S", 0.0)
    monkeypatch.setattr(outlet, "LOOK_INTERVAL_S", 0.01)
    stage.successes |= dict.fromkeys(CALLS, 1)
    async with stage.running():
        await stage.until_live("", True, "API/Connected")
        await stage.until_live("T", 1.0)
        stage.is_connected = False
        await stage.until_live("", False, "API/Connected")
        stale = await stage.host.until(lambda: stage.host.of("DDATA", device="T"))
        assert qualities(stale[0]) == {STALE}
        assert value_of(stale[0].named("Signal/SINR")[0]) == 1.0
        assert stale[0].named("Signal/SINR")[0].timestamp == NOW
        await stage.terminal("S", state="online")
        await stage.host.until(lambda: stage.host.of("DBIRTH", device="S"))
        assert qualities(stage.host.of("DBIRTH", device="S")[0]) == {STALE, None}
        stage.is_connected = True
        await stage.until_live("", True, "API/Connected")
        stage.successes["ut_signal_quality"] = 2
        good = (await stage.host.until(lambda: stage.host.of("DDATA", device="T")[1:]))[0]
        assert {name for name, _ in good.metrics} == {"Signal/SINR"}
        assert qualities(good) == {GOOD}


def qualities(message: Any) -> set[int | None]:
    """The qualities of the metrics of a message."""
    return {
        dict(zip(metric.properties.keys, (v.int_value for v in metric.properties.values), strict=True)).get("Quality")
        for _, metric in message.metrics
    }


async def test_usage_is_in_the_folder_of_its_product(stage: Stage) -> None:
    """Or in the Device for usage, while the product is not known; that dies with its last bucket."""
    bucket = {"bucket_id": "B", "product_id": "X", "used_gb": 1.5, "effective_date": "2025-06-15T00:00:00Z"}
    async with stage.running():
        await stage.list_record("usage", "B", NOW + 1, **bucket)
        await stage.until_live("_usage", 1.5, "Usage/B/Used")
        await stage.product("X", NOW + 2, imei="T")
        await stage.until_live("T", 1.5, "Product/X/Usage/B/Used")
        await stage.host.until(lambda: stage.host.of("DDEATH", device="_usage"))
        await stage.list_record("usage", "B", NOW + 3, **bucket | {"used_gb": 2.5})
        await stage.until_live("T", 2.5, "Product/X/Usage/B/Used")
        await stage.remove("usage", "B")
        await stage.host.until(lambda: not stage.host.of("DBIRTH", device="T")[-1].named("Product/X/Usage/B/Used"))


async def test_rows_of_other_kinds_move_the_cursor(stage: Stage) -> None:
    """What Sparkplug has no metric for does not hold the journal."""
    async with stage.running():
        await stage.until_live("T", 1.0)
        what: RowType = "alert"
        for _ in range(3):
            await stage.db.commit(Batch(entries=[Entry("bridge", "", what, "x", NOW, encode({}))]))
        await stage.measure("T", (NOW + 1, 2.0))
        await stage.until_live("T", 2.0)
        await stage.until_saved()


async def test_refusals_are_alerted_at_most_once_a_second(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of many commands that cannot be obeyed the first is an alert, all are in the log, and the session goes on."""
    monkeypatch.setattr(shared, "ALERT_INTERVAL_S", 3600.0)
    async with stage.running() as made:
        await stage.until_live("T", 1.0)
        births = len(stage.host.of("NBIRTH"))
        for raw in (b"\xff\xff", b"", b"\xff"):
            await stage.host.write(raw=raw)
        await stage.host.write({"name": "Bridge/Version", "string_value": "2"})
        await stage.host.write({"name": "Polling/ut_traffic/Interval", "string_value": "5m"})
        await stage.measure("T", (NOW + 1, 2.0))
        await stage.until_live("T", 2.0)
        await stage.host.write({"name": "Node Control/Rebirth", "boolean_value": True})
        await stage.host.until(lambda: len(stage.host.of("NBIRTH")) > births)
        assert len(stage.alerts) == 1
        assert sum("Polling/ut_traffic/Interval" in line for line in caplog.messages) == 1
        monkeypatch.setattr(shared, "ALERT_INTERVAL_S", 0.0)
        await made._shared.refuse("the next")
        assert stage.alerts[-1] == "the next"


async def test_write_that_is_refused_is_answered_with_the_value_in_force(stage: Stage) -> None:
    """Also of a metric that nobody may write."""
    state = encode({"enabled": True, "interval": 60, "status": "ok"})
    await stage.db.commit(
        Batch(
            entries=[Entry("call", "sites", "state", "", NOW + 1, state)],
            writes=[RecordWrite("call", "sites", state, entry=0)],
        )
    )
    async with stage.running():
        await stage.until_live("T", 1.0)
        (version,) = stage.host.of("NBIRTH")[0].named("Bridge/Version")
        await stage.host.write({"alias": version.alias, "string_value": "2"})
        answer = await stage.host.until(lambda: [m for h in stage.host.of("NDATA") for m in h.named("Bridge/Version")])
        assert (value_of(answer[0]), answer[0].timestamp) == ("1", version.timestamp)
        assert stage.alerts == ["Sparkplug: an NCMD writes Bridge/Version: nobody may write it"]
        name = "Polling/sites/Interval"
        await stage.host.write({"name": name, "boolean_value": True})
        answer = await stage.host.until(lambda: [m for h in stage.host.of("NDATA") for m in h.named(name)])
        assert (value_of(answer[0]), answer[0].timestamp) == (60, NOW + 1)


async def test_retained_command_is_refused_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not obeyed, though the broker brings it again each time that it is asked whether it has read everything."""
    monkeypatch.setattr(shared, "ALERT_INTERVAL_S", 0.0)
    request = pb.Payload(timestamp=1)
    request.metrics.add(name="Node Control/Rebirth", boolean_value=True)
    topic = f"spBv1.0/OneWeb/NCMD/{EDGE}"
    await harness.publish(stage.port, topic, request.SerializeToString(), retain=True)
    async with stage.running():
        await stage.until_live("T", 1.0)
        for number in range(1, 6):
            await stage.measure("T", (NOW + number, float(number)))
            await stage.until_live("T", float(number))
    assert stage.alerts == ["Sparkplug: a retained NCMD is not obeyed: publish it without retain"]
    assert len(stage.host.of("NBIRTH")) == 1


@pytest.mark.parametrize(("interval", "expected"), [(3600.0, False), (0.0, True)])
async def test_backlog_is_told_in_intervals(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, interval: float, expected: bool
) -> None:
    """How much waits goes out no more often than that, though it changes with each row."""
    monkeypatch.setattr(session, "BACKLOG_INTERVAL_S", interval)
    async with stage.running():
        await stage.until_live("T", 1.0)
        for number in range(1, 6):
            await stage.measure("T", (NOW + number, float(number)))
            await stage.until_live("T", float(number))
    assert bool([m for h in stage.host.of("NDATA") for m in h.named("Journal/Backlog")]) == expected


async def test_birth_that_is_too_large_is_alerted_once_and_the_others_go_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are passed over, `seq` has no gap, and the journal is not held."""
    too_large = EdgeLink.too_large

    def of_one(self: EdgeLink, message: EdgeMessage) -> str | None:
        return "1 byte too much" if message.topic.endswith("/T") else too_large(self, message)

    monkeypatch.setattr(EdgeLink, "too_large", of_one)
    await stage.terminal("S")
    for _ in range(2):
        async with stage.running():
            await stage.host.until(lambda: stage.host.of("DBIRTH", device="S"))
            for imei in ("T", "S"):
                await stage.measure(imei, (NOW + len(stage.host.messages), 2.0))
            await stage.until_live("S", 2.0)
            await stage.host.write({"name": "Bridge/Version", "string_value": "2"})
            await stage.host.until(lambda: stage.host.of("NDATA"))
            await stage.until_saved()
        await stage.host.until(lambda: stage.host.of("NDEATH"))
        messages = [m for m in stage.host.messages if m.verb != "NDEATH"]
        assert [m.payload.seq for m in messages] == list(range(len(messages)))
        assert {m.device for m in messages} == {"", "S"}
        stage.host.messages.clear()
    assert [sentence for sentence in stage.alerts if "birth" in sentence] == [
        "Sparkplug: the birth of Device T cannot be sent: 1 byte too much"
    ] * 2


async def test_sample_of_a_product_that_is_gone_by_then_ends_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database may be ahead of what the outlet knows: a birth lacks the product, whose rows are still to come."""
    monkeypatch.setattr(primary_host, "MIN_REBIRTH_INTERVAL_S", 0.0)
    apply = Fleet.apply
    monkeypatch.setattr(Fleet, "apply", lambda self, row: [] if row.what == "removed" else apply(self, row))
    async with stage.running():
        await stage.until_live("T", 1.0)
        await stage.remove("product", "P")
        await stage.host.write({"name": "Node Control/Rebirth", "boolean_value": True})
        await stage.host.until(lambda: len(stage.host.of("DBIRTH", device="T")) == 2)
        assert not stage.host.of("DBIRTH", device="T")[-1].named("Product/P/Plan/Name")
        body = encode({"product_id": "P", "ts": NOW + 5, "ef_uplink_bps": 7})
        for what in ("history", "metric"):
            await stage.db.commit(Batch(entries=[Entry("product", "P", what, "throughput", NOW + 5, body)]))
        # The first value may be in a birth that comes before the end of the outlet would; the second is not.
        for value in (9.0, 12.0):
            await stage.measure("T", (NOW + int(value), value))
            await stage.until_live("T", value)
    assert len(stage.host.of("NBIRTH")) == 2


async def test_number_of_the_connection_wraps(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """After 255 comes 0, in births and in the deaths that the broker sends."""
    monkeypatch.setattr(wire, "DEATH_TIMEOUT_S", 5.0)
    for number in (0, 255, 0):
        async with stage.running():
            await stage.host.until(lambda: stage.host.of("NBIRTH"))
        deaths = await stage.host.until(lambda: stage.host.of("NDEATH")[1:] and stage.host.of("NDEATH"))
        births = stage.host.of("NBIRTH")
        assert {value_of(m.named("bdSeq")[0]) for m in births + deaths} == {number}
        stage.host.messages.clear()
        if not births[0].named("bdSeq")[0].long_value:
            async with database.open_connection(stage.path) as raw:
                await raw.execute("UPDATE edge_node SET bd_seq = 254")


@pytest.mark.parametrize("steps", range(6))
async def test_read_that_is_cancelled_leaves_no_transaction(stage: Stage, steps: int) -> None:
    """Also while it begins: a connection that is lost ends its reads, and the next one reads."""
    async with open_edge_tables(stage.path) as tables:
        reading = asyncio.create_task(tables.fleet_ids())
        for _ in range(steps):
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert (await tables.fleet_ids()).head >= 0
