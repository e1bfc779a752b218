"""What the broker refuses or cannot take, and what it is owed: the publisher against a real mosquitto, in process."""

import json
from pathlib import Path

import msgspec
import pytest

from oneweb_bridge import broker, session
from oneweb_bridge.model import Batch, Entry, Message, Put
from tests import harness
from tests.test_publisher import ALL, Bench, bench, guarded_broker, of_sites, samples, sites


def large_site(size: int) -> Batch:
    """A site whose retained record is so large."""
    doc = json.dumps({"site_id": "large", "name": "x" * size}).encode()
    entry = Entry("site", "large", "state", "state", 1, doc)
    return Batch(entries=[entry], puts=[Put("site", "large", doc, entry=0)])


async def forget_head(port: int) -> None:
    """Takes the head away, so that the next connection restores everything."""
    await harness.said(port, "oneweb/bridge/head", retain=True)


async def published(made: Bench, port: int) -> None:
    """Brings the whole journal and the head to the broker, and leaves."""
    async with made.publishing():
        await made.drained()
        head = await made.rows.head()
        await harness.until_retained(port, "oneweb/bridge/head", lambda said: said["seq"] == head)


# ── size ───────────────────────────────────────────────────────────────────────────────────────────


async def test_restore_and_republish_pass_what_fits(tmp_path: Path) -> None:
    """A record above the broker's limit is told when all is restored or republished, and the connection stays."""
    async with guarded_broker(tmp_path, ALL) as port, bench(tmp_path, port) as made:
        await made.store.commit(large_site(6000))
        await made.store.commit(sites(5))
        await published(made, port)
    async with (
        guarded_broker(tmp_path, ALL, "max_packet_size 4000") as port,
        bench(tmp_path, port) as made,
        harness.recording(port) as recorder,
        made.publishing() as running,
    ):
        await recorder.until(lambda: len(of_sites(recorder, 0)) == 5)
        await harness.until_retained(port, "oneweb/bridge/head", lambda said: said["seq"] == 6)
        since = running.connected_since
        assert await running.republish() == 5
        await recorder.until(lambda: len(of_sites(recorder, 0)) == 10)
        assert running.connected_since == since
    assert [alert.split(" ")[:2] for alert in made.alerts] == [["message_too_large:", "oneweb/site/large/state"]]


async def test_replay_and_discovery_pass_what_fits(tmp_path: Path) -> None:
    """A replayed row and a message of discovery above a limit are told and left out, and the connection stays."""
    async with guarded_broker(tmp_path, ALL, "max_packet_size 4000") as port, bench(tmp_path, port) as made:
        await made.store.commit(samples(3, 3))
        await made.store.commit(samples(1, 1, size=3800))
        await published(made, port)
        # A replayed row is a little longer than the row.
        made.settings = msgspec.structs.replace(made.settings, max_payload=3815)
        async with harness.recording(port) as recorder, made.publishing() as running:
            since = await recorder.until(lambda: running.connected_since)
            assert await running.replay(None, None, 0, 1 << 62) == 3
            pair = [
                Message("homeassistant/a", b"x" * 9000, retain=True),
                Message("homeassistant/b", b"{}", retain=True),
            ]
            assert await running.announce(pair) == [False, True]
            assert running.connected_since == since
    assert [alert.split(":")[0] for alert in made.alerts] == ["message_too_large"] * 2


# ── connecting and leaving ─────────────────────────────────────────────────────────────────────────


async def test_info_goes_out_once_at_a_connect(tmp_path: Path) -> None:
    """The bridge's own state is published at a connect, and then only when it has changed."""
    port = broker.free_port()
    async with broker.running(port), bench(tmp_path, port) as made, harness.recording(port) as recorder:
        await made.store.commit(samples(3, 3))
        await published(made, port)
        await recorder.quiet(0.3)
    assert len(recorder.on("oneweb/bridge/info")) == 1


async def test_everything_is_restored_where_rows_behind_the_head_are_gone(tmp_path: Path) -> None:
    """Rows behind the broker's head that were trimmed may have cleared or said anything: all topics are restored."""
    port = broker.free_port()
    async with broker.running(port), bench(tmp_path, port) as made:
        await made.store.commit(sites(10))
        await published(made, port)
        head = {"journal": made.store.journal_id, "instance": "main", "seq": 4}
        await harness.said(port, "oneweb/bridge/head", json.dumps(head), retain=True)
        await made.store._db.execute("DELETE FROM journal WHERE seq <= 8")
        async with harness.recording(port, "oneweb/site/#") as recorder:
            await recorder.quiet(0.3)
            known = len(recorder.messages)
            await published(made, port)
            await recorder.until(lambda: len(of_sites(recorder, known)) == 10)


async def test_head_is_not_said_while_topics_are_restored(tmp_path: Path) -> None:
    """While everything is republished the head stays where it was, also when the cursor moves meanwhile."""
    port = broker.free_port()
    async with broker.running(port), bench(tmp_path, port) as made, made.publishing() as running:
        await made.store.commit(sites(3))
        await made.drained()
        await harness.until_retained(port, "oneweb/bridge/head", lambda said: said["seq"] == 3)
        current = running._session
        assert current is not None
        async with current._pausing:
            running.cursor = 4
            current._say_head()
            assert current._window.state() == "idle"
        current._say_head()
        assert current._window.state() == "busy"


async def test_what_was_acknowledged_last_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that ends notes what the broker has acknowledged, though its cursor had no time to."""

    async def never(_: session.Session) -> None:
        return

    monkeypatch.setattr(session.Session, "_commit", never)
    port = broker.free_port()
    async with broker.running(port), bench(tmp_path, port) as made:
        await made.store.commit(samples(3, 3))
        async with harness.recording(port, "oneweb/terminal/#") as recorder, made.publishing():
            await recorder.until(lambda: len(made.sent) == 3)
        assert await made.rows.cursor() == 3
