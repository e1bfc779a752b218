"""The announcer with a real database and a broker that is played: what is sent, when, and when not again."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config, Filter
from oneweb_bridge.encoding import encode
from oneweb_bridge.homeassistant import announcer, refusals
from oneweb_bridge.homeassistant.announcer import Announcer
from oneweb_bridge.model.records import Batch, Entry, Message, NewestSampleWrite, RecordWrite
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store import announcements, store
from tests.cancelling import cancel_until_done

OWN = 13
"""Devices of the bridge itself: one, and one for each call."""


class Outlet:
    """A broker that keeps what is retained. `refuses` has parts of topics that it does not take."""

    def __init__(self) -> None:
        self.cursor = 10
        self.sent: list[str] = []
        self.retained: dict[str, dict[str, Any]] = {}
        self.refuses: set[str] = set()
        self.connected = True

    async def publish_messages(self, messages: Sequence[Message]) -> list[bool] | None:
        """Takes messages, as the publisher does."""
        if not self.connected:
            return None
        return [self._take(message) for message in messages]

    def _take(self, message: Message) -> bool:
        assert message.retain
        self.sent.append(message.topic)
        if any(part in message.topic for part in self.refuses):
            return False
        if message.payload:
            self.retained[message.topic] = json.loads(message.payload)
        else:
            del self.retained[message.topic]
        return True

    def names(self, kind: str) -> dict[str, str]:
        """The names of the devices of one kind, by id."""
        names = {topic.split("/")[2]: payload["device"]["name"] for topic, payload in self.retained.items()}
        start = f"oneweb_main_{kind}_"
        return {id.removeprefix(start): name for id, name in names.items() if id.startswith(start)}


class Bench:
    """A store, an outlet, and the announcer between them."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "bridge.db"
        self.outlet = Outlet()
        self.config: Config = parse("", {})
        self.now = 1_000_000.0
        self.tree = TopicTree("oneweb", "main", "journal")

    def clock(self) -> float:
        """The time that the database is told."""
        return self.now

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[store.Store]:
        """A bridge that runs, but for its tasks."""
        async with (
            store.open_store(self.path, Clock(self.clock, self.clock, "a boot")) as self.store,
            announcements.open_devices(self.path, self.store.steady.now) as known,
        ):
            self.announcer = Announcer(known, self.tree, self.config)
            yield self.store

    async def sent_topics(self) -> list[str]:
        """The topics that are sent until nothing is left to be told, without the pauses in between."""
        before = len(self.outlet.sent)
        for _ in range(20):
            count = len(self.outlet.sent)
            self.now += announcer.PAUSE_S
            await self.announcer._mark_due()
            await self.announcer._reconcile(self.outlet)
            if count == len(self.outlet.sent) and count > before:
                break
        return self.outlet.sent[before:]

    def reconfigure(self, **changes: Any) -> None:
        """Another configuration of Home Assistant."""
        config = msgspec.structs.replace(self.config.homeassistant, **changes)
        self.config = msgspec.structs.replace(self.config, homeassistant=config)
        self.announcer.reconfigure(self.config)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(announcer, "CHUNK_INTERVAL_S", 0.0)
    # A disk that is slow for the 5 s of the first pause tries nothing again.
    monkeypatch.setattr(announcer, "time", SimpleNamespace(monotonic=lambda: 0.0))
    return Bench(tmp_path)


def record(kind: Any, id: str, key: str, **fields: Any) -> Batch:
    """A record that is new or has changed."""
    doc = encode({key: id, **fields})
    return Batch(entries=[Entry(kind, id, "changed", "", 5, doc)], writes=[RecordWrite(kind, id, doc, entry=0)])


def terminal(imei: str, **fields: Any) -> Batch:
    return record("terminal", imei, "imei", **({"name": f"T{imei}", "state": "online"} | fields))


def product(id: str, **fields: Any) -> Batch:
    batch = record("product", id, "product_id", status="active", **fields)
    batch.product_links.append(("product", id, tuple((id, imei) for imei in [fields.get("imei")] if imei)))
    return batch


def sample(imei: str, ts: int, value_types: str) -> Batch:
    doc = encode({"imei": imei, "ts": ts})
    newest = NewestSampleWrite("terminal", "signal_quality", imei, ts, ts, doc, 0, value_types)
    return Batch(entries=[Entry("terminal", imei, "metric", "signal_quality", ts, doc)], newest=[newest])


def removed(kind: Any, id: str) -> Batch:
    return Batch(entries=[Entry(kind, id, "removed", "", 5, b"{}")], removed=[(kind, id)])


async def test_device_that_is_noted_after_the_broker_has_forgotten_it_is_announced_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection may end, and the next one begin, between the broker's answer and its note in the database."""
    async with bench.opened() as db:
        await db.commit(terminal("T"))
        known = bench.announcer._devices
        real = known.note

        async def note(*arguments: Any) -> None:
            monkeypatch.setattr(known, "note", real)
            await bench.announcer.on_broker_state_lost(0)
            await real(*arguments)

        monkeypatch.setattr(known, "note", note)
        sent = await bench.sent_topics()
    assert [sent.count(topic) for topic in sent[: announcer.CHUNK_DEVICES]] == [2] * announcer.CHUNK_DEVICES


@pytest.mark.parametrize("is_removed", [False, True])
async def test_broker_that_forgets_what_is_just_found_unchanged_gets_it_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    """A marked device that differs in nothing from what was sent is compared with it just before that is lost."""
    topic = "homeassistant/device/oneweb_main_terminal_T/config"
    async with bench.opened() as db:
        await db.commit(terminal("T"))
        await bench.sent_topics()
        older_state = dict(bench.outlet.retained) if is_removed else {}
        if is_removed:
            await db.commit(removed("terminal", "T"))
            await bench.sent_topics()
        await db.commit(Batch(dirty_devices=[("terminal", "T")]))
        known = bench.announcer._devices
        real = known.dirty

        async def dirty(*arguments: Any) -> list[announcements.DirtyDevice]:
            devices = await real(*arguments)
            if devices:
                monkeypatch.setattr(known, "dirty", real)
                bench.outlet.retained = older_state
                await bench.announcer.on_broker_state_lost(1)
            return devices

        monkeypatch.setattr(known, "dirty", dirty)
        sent = await bench.sent_topics() + await bench.sent_topics()
    assert sent.count(topic) == 1
    assert (topic in bench.outlet.retained) == (not is_removed)


async def test_everything_is_announced_once(bench: Bench) -> None:
    """The bridge, its calls, terminals and products are announced in the order in which they hang on one another."""
    async with bench.opened() as db:
        await db.commit(product("P", imei="1"))
        await db.commit(terminal("1"))
        sent = await bench.sent_topics()

        kinds = [topic.split("_")[2].partition("/")[0] for topic in sent]
        assert kinds == ["bridge", *["call"] * 12, "terminal", "product"]
        assert await bench.sent_topics() == []


async def test_restart_announces_nothing_anew(bench: Bench) -> None:
    """What was announced before a restart is not announced again after it."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        assert len(await bench.sent_topics()) == OWN + 1
    async with bench.opened():
        assert await bench.sent_topics() == []


async def test_only_new_values_are_told(bench: Bench) -> None:
    """A sample with the values of before is no reason to look at a device; one with a new value is told."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await db.commit(sample("1", 1, "rsrp_dbm=n"))
        await bench.sent_topics()
        await db.commit(sample("1", 2, "rsrp_dbm=n"))
        assert await bench.announcer._devices.dirty(-1000.0, 10) == []
        await db.commit(sample("1", 3, "sinr_db=n"))
        (topic,) = await bench.sent_topics()

        entities = bench.outlet.retained[topic]["components"]
        assert {"signal_quality_rsrp_dbm", "signal_quality_sinr_db"} <= set(entities)


async def test_removed_entity_is_sent_once_as_platform_only(bench: Bench) -> None:
    """An entity that is gone is named once more without anything but its platform, and then not any more."""
    async with bench.opened() as db:
        await db.commit(terminal("1", latitude=1.0, longitude=2.0))
        await bench.sent_topics()
        await db.commit(terminal("1"))
        sent = await bench.sent_topics()

        assert len(sent) == 2
        assert "position" not in bench.outlet.retained[sent[0]]["components"]


async def test_no_device_is_told_twice_in_quick_succession(bench: Bench) -> None:
    """Changes that come one after the other within the pause are told together, after it."""
    async with bench.opened() as db:
        await bench.sent_topics()
        for number in range(5):
            await db.commit(terminal("1", name=f"N{number}"))
            await bench.announcer._reconcile(bench.outlet)
            bench.now += announcer.PAUSE_S / 10
        assert bench.outlet.names("terminal") == {}
        bench.now += announcer.PAUSE_S
        await bench.announcer._reconcile(bench.outlet)
        await db.commit(terminal("1", name="last"))
        bench.now += announcer.PAUSE_S / 2
        await bench.announcer._reconcile(bench.outlet)
        assert bench.outlet.names("terminal") == {"1": "N4"}
        assert len(await bench.sent_topics()) == 1
        assert bench.outlet.names("terminal") == {"1": "last"}


async def test_birth_announces_everything_again(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """When Home Assistant has started, each device is announced again, once."""
    monkeypatch.setattr(announcer, "BIRTH_DELAY_S", (0.0, 0.0))
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        before = await bench.sent_topics()
        bench.announcer.on_birth()
        bench.announcer.on_birth()

        assert sorted(await bench.sent_topics()) == sorted(before)


async def test_forgetful_broker_is_told_what_it_lost(bench: Bench) -> None:
    """Only what was sent since the broker's last known row is announced again."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await bench.sent_topics()
        bench.outlet.cursor = 50
        await db.commit(terminal("2"))
        await bench.sent_topics()
        await bench.announcer.on_broker_state_lost(40)
        assert [topic.split("_")[-1] for topic in await bench.sent_topics()] == ["2/config"]
        await bench.announcer.on_broker_state_lost(0)
        assert len(await bench.sent_topics()) == OWN + 2


async def test_device_is_removed_with_its_record(bench: Bench) -> None:
    """A removed terminal is cleared, and its product then hangs on the bridge."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await db.commit(product("P", imei="1"))
        await bench.sent_topics()
        topic = "homeassistant/device/oneweb_main_product_P/config"
        assert bench.outlet.retained[topic]["device"]["via_device"] == "oneweb_main_terminal_1"
        await db.commit(removed("terminal", "1"))
        await bench.sent_topics()

        assert bench.outlet.names("terminal") == {}
        assert bench.outlet.retained[topic]["device"]["via_device"] == "oneweb_main_bridge"


async def test_removed_device_is_cleared_once(bench: Bench) -> None:
    """However often a device that is gone is marked again, its topic is cleared a single time."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await bench.sent_topics()
        await db.commit(removed("terminal", "1"))
        first = await bench.sent_topics()
        assert first.count("homeassistant/device/oneweb_main_terminal_1/config") == 1
        for _ in range(3):
            await db.commit(Batch(dirty_devices=[("terminal", "1")]))
            await bench.announcer.republish_all()
            assert "homeassistant/device/oneweb_main_terminal_1/config" not in await bench.sent_topics()


async def test_removed_device_is_cleared_again_after_broker_state_loss(bench: Bench) -> None:
    """A removal that the broker forgot is told again; a birth is no reason to clear what is not there."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await bench.sent_topics()
        ghost = dict(bench.outlet.retained)
        await db.commit(removed("terminal", "1"))
        (topic,) = await bench.sent_topics()
        await bench.announcer.republish_all()
        assert topic not in await bench.sent_topics()
        bench.outlet.retained = ghost
        await bench.announcer.on_broker_state_lost(5)
        await bench.sent_topics()
        assert topic not in bench.outlet.retained
        await db.commit(terminal("1"))
        await bench.sent_topics()
        assert topic in bench.outlet.retained


async def test_first_of_two_namesakes_is_renamed(bench: Bench) -> None:
    """When a second terminal has a name, both carry their IMEI in it."""
    async with bench.opened() as db:
        await db.commit(terminal("1", name="same"))
        await bench.sent_topics()
        assert bench.outlet.names("terminal") == {"1": "same"}
        await db.commit(terminal("2", name="same"))
        await bench.sent_topics()
        await bench.sent_topics()

        assert bench.outlet.names("terminal") == {"1": "same 1", "2": "same 2"}


async def test_filter_decides_what_is_announced(bench: Bench) -> None:
    """A filter that is set clears what it does not let pass, with products, and one that is lifted brings it back."""
    async with bench.opened() as db:
        for imei in ("1", "2"):
            await db.commit(terminal(imei))
            await db.commit(product(f"P{imei}"))
            link = Batch(product_links=[("terminal", imei, ((f"P{imei}", imei),))])
            await db.commit(link)
        await bench.sent_topics()
        bench.reconfigure(filter=Filter(imeis=("2",)))
        await bench.sent_topics()
        assert set(bench.outlet.names("terminal")) == {"2"}
        assert set(bench.outlet.names("product")) == {"P2"}
        bench.reconfigure(filter=Filter())
        await bench.sent_topics()
        assert set(bench.outlet.names("terminal")) == {"1", "2"}


async def test_switched_off_clears_everything(bench: Bench) -> None:
    """With `homeassistant.enabled: false` nothing stays retained, and changes leave nothing to do."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await bench.sent_topics()
        bench.reconfigure(enabled=False)
        await bench.sent_topics()
        assert bench.outlet.retained == {}
        await db.commit(terminal("2"))
        assert await bench.sent_topics() == []
        assert await bench.announcer._devices.dirty(-1000.0, 10) == []


async def test_configuration_of_a_moment_leaves_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is in force only while a pass over many devices is under way, and the one before it comes back."""
    real, passes = bench.outlet.publish_messages, list[int]()

    async def publish_messages(messages: Sequence[Message]) -> list[bool] | None:
        passes.append(len(messages))
        if len(passes) in (1, 2):
            bench.reconfigure(enabled=len(passes) == 2)
        return await real(messages)

    async with bench.opened() as db:
        for number in range(30):
            await db.commit(terminal(f"{number}"))
        await bench.sent_topics()
        before = dict(bench.outlet.retained)
        await bench.announcer.republish_all()
        monkeypatch.setattr(bench.outlet, "publish_messages", publish_messages)
        await bench.sent_topics()
        await bench.sent_topics()
        assert len(passes) > 2
        assert bench.outlet.retained == before


async def test_another_prefix_moves_everything(bench: Bench) -> None:
    """Under another discovery prefix nothing stays below the old one."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await bench.sent_topics()
        bench.reconfigure(discovery_prefix="ha")
        await bench.sent_topics()

        assert len(bench.outlet.retained) == OWN + 1
        assert all(topic.startswith("ha/device/") for topic in bench.outlet.retained)


async def test_another_instance_moves_everything(bench: Bench) -> None:
    """Devices are named after the instance: after it was renamed none stays under the old name."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await bench.sent_topics()
    bench.tree = TopicTree("oneweb", "other", "journal")
    async with bench.opened():
        await bench.sent_topics()

        assert len(bench.outlet.retained) == OWN + 1
        assert all(topic.startswith("homeassistant/device/oneweb_other_") for topic in bench.outlet.retained)


async def test_another_base_topic_is_announced(bench: Bench) -> None:
    """Devices name the bridge's topics: after the base was renamed all are announced again."""
    async with bench.opened() as db:
        await db.commit(terminal("1"))
        await bench.sent_topics()
    bench.tree = TopicTree("renamed", "main", "journal")
    async with bench.opened():
        assert len(await bench.sent_topics()) == OWN + 1


async def test_refused_device_does_not_hold_up_the_others(bench: Bench) -> None:
    """What the broker refuses is not counted as told; the others are, and it is not tried again at once."""
    bench.outlet.refuses.add("terminal_1")
    async with bench.opened() as db:
        for imei in ("1", "2"):
            await db.commit(terminal(imei))
        sent = await bench.sent_topics()
        assert sum("terminal_1" in topic for topic in sent) == 1
        assert set(bench.outlet.names("terminal")) == {"2"}
        bench.outlet.refuses.clear()
        await bench.announcer.on_broker_state_lost(bench.outlet.cursor)
        await bench.sent_topics()
        assert set(bench.outlet.names("terminal")) == {"1", "2"}


async def test_broker_that_refuses_all_is_left_alone(bench: Bench) -> None:
    """Where nothing is accepted, no more than one chunk is tried for a while."""
    bench.outlet.refuses.add("homeassistant")
    async with bench.opened():
        assert len(await bench.sent_topics()) == announcer.CHUNK_DEVICES


async def lose_state_while_one_is_refused(bench: Bench, db: store.Store) -> None:
    """All is announced but one terminal, which is refused; then the broker has nothing any more."""
    await bench.sent_topics()
    bench.outlet.refuses.add("terminal_1")
    await db.commit(terminal("1"))
    await bench.sent_topics()
    bench.outlet.retained.clear()
    await bench.announcer.on_broker_state_lost(0)


async def test_broker_that_lost_its_state_gets_devices_while_others_are_refused(bench: Bench) -> None:
    """A pause after nothing but refusals is not one for devices that the broker had accepted and lost."""
    async with bench.opened() as db:
        await lose_state_while_one_is_refused(bench, db)
        await bench.sent_topics()
        assert len(bench.outlet.retained) == OWN


async def test_refused_chunk_holds_up_the_others_for_seconds_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a connection whatever is due first may be refused alone; what the broker lost comes soon after it."""
    elapsed = 0.0
    monkeypatch.setattr(announcer, "time", SimpleNamespace(monotonic=lambda: elapsed))
    async with bench.opened() as db:
        await lose_state_while_one_is_refused(bench, db)
        # The terminal is due since before; what was lost waits until PAUSE_S after it was marked.
        await bench.announcer._reconcile(bench.outlet)
        assert bench.outlet.sent[-1].endswith("terminal_1/config")
        assert await bench.sent_topics() == []
        elapsed = refusals.PAUSES_S[0]
        await bench.sent_topics()
        assert len(bench.outlet.retained) == OWN


async def test_connection_tries_refused_devices_again(bench: Bench) -> None:
    """The broker's limits and rules may be others than they were, whatever it says of its state."""
    async with bench.opened() as db:
        bench.outlet.refuses.add("terminal_1")
        await db.commit(terminal("1"))
        await bench.sent_topics()
        bench.outlet.refuses.clear()
        assert await bench.sent_topics() == []
        await bench.announcer.on_broker_state_lost(bench.outlet.cursor + 1)
        await bench.sent_topics()
        assert set(bench.outlet.names("terminal")) == {"1"}


@pytest.mark.parametrize("accepts", [True, False])
async def test_answers_of_the_connection_before_are_not_noted(bench: Bench, accepts: bool) -> None:
    """What the broker took or refused before it lost its state is sent to it again at once."""
    async with bench.opened():
        publish = bench.outlet.publish_messages

        async def lose_state(messages: Sequence[Message]) -> list[bool] | None:
            bench.outlet.publish_messages = publish  # type: ignore[method-assign]  # for the first chunk only
            accepted = await publish(messages)
            bench.outlet.retained.clear()
            await bench.announcer.on_broker_state_lost(0)
            return accepted if accepts else [False] * len(messages)

        bench.outlet.publish_messages = lose_state  # type: ignore[method-assign]  # as a broker that is killed then
        await bench.sent_topics()
        await bench.sent_topics()
        assert len(bench.outlet.retained) == OWN


def test_pauses_of_refused_devices_grow_until_one_is_taken() -> None:
    """5, 10, 20 s and so on, at most 300 s; a device that is taken begins anew, and with it the pause of all."""
    known = refusals.DeviceRefusals()
    first, second = (announcements.DirtyDevice("terminal", id, 1, "", b"", {}) for id in "12")
    now, pauses = 0.0, []
    for _ in range(8):
        known.note([], [first], now)
        assert known.waiting(now) == {("terminal", "1")}
        pause = next(s for s in range(1, 400) if known.may_send(now + s))
        assert not known.waiting(now + pause)
        pauses.append(pause)
        now += pause
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300]
    known.note([second], [first], now)
    assert known.may_send(now)
    assert known.waiting(now + 299) == {("terminal", "1")}
    known.note([first], [], now + 300)
    known.note([], [first], now + 300)
    assert not known.may_send(now + 304)
    assert known.may_send(now + 305)


async def test_without_a_connection_everything_waits(bench: Bench) -> None:
    """What could not be sent is sent when there is a connection again."""
    async with bench.opened():
        bench.outlet.connected = False
        assert await bench.sent_topics() == []
        bench.outlet.connected = True
        assert len(await bench.sent_topics()) == OWN


async def test_run_announces_by_itself(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task announces what there is, without being asked."""
    monkeypatch.setattr(announcer, "PAUSE_S", 0.0)
    async with bench.opened():
        task = asyncio.create_task(bench.announcer.run(bench.outlet))
        async with asyncio.timeout(10):
            while len(bench.outlet.retained) < OWN:
                await asyncio.sleep(0.01)
        await cancel_until_done(task)
        with contextlib.suppress(asyncio.CancelledError):
            await task
