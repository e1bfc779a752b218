"""A copy of the database, and a bridge that goes on with an older or another one: recognised, and harmless."""

import asyncio
import contextlib
import json
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.heads import Place
from oneweb_bridge.model.records import Batch, Entry, RecordWrite
from oneweb_bridge.store import backup, journal, store
from tests import checker, harness, truth
from tests.campaign import is_at_rest
from tests.test_publisher import Bench, bench


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
        yield db


def sites(first: int, count: int) -> Batch:
    """A batch of so many sites, each with its `added` event."""
    batch = Batch()
    for number in range(first, first + count):
        doc = json.dumps({"site_id": f"s{number}"}).encode()
        body = b'{"record":' + doc + b',"initial":true}'
        batch.entries.append(Entry("site", f"s{number}", "added", "", number, body))
        batch.writes.append(RecordWrite("site", f"s{number}", doc, entry=len(batch.entries) - 1))
    return batch


def state_files(directory: Path, name: str = "bridge.db") -> list[Path]:
    """The database and what SQLite keeps beside it."""
    return [path for path in directory.glob(f"{name}*") if path.suffix != ".lock"]


def restored(copy: Path, directory: Path, name: str = "bridge.db") -> None:
    """What docs/operating.md says: the old files go, and the copy takes their place."""
    for path in state_files(directory, name):
        path.unlink()
    shutil.copy(copy, directory / name)


# ── the copy ───────────────────────────────────────────────────────────────────────────────────


async def test_backup_of_a_running_bridge_is_whole(world: harness.World) -> None:
    """The copy is private, passes SQLite's check, and has each record as its journal announced it last."""
    config, copy = world.config(), world.directory / "copy.db"
    async with harness.recording(world.port) as recorder, harness.running(config):
        await recorder.until(lambda: is_at_rest(recorder))
        world.api.advance(3600)
        code, out, err = await harness.command("backup", str(copy), "-c", str(config))

        assert (code, err) == (0, "")
        assert str(copy) in out
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert not list(copy.parent.glob("copy.db?*"))
        assert_consistent(copy)


def assert_consistent(copy: Path) -> None:
    with reading(copy) as db:
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        announced = {
            (kind, id): json.loads(body)["record"]
            for kind, id, body in db.execute(
                "SELECT entity, id, body FROM journal WHERE what IN ('added', 'changed') ORDER BY seq"
            )
        }
        stored = db.execute(
            "SELECT kind, id, doc FROM record WHERE kind IN ('terminal', 'product', 'organization', 'site')"
        )
        assert {(kind, id): json.loads(doc) for kind, id, doc in stored} == announced
        head = db.execute("SELECT max(seq) FROM journal").fetchone()[0]
        assert db.execute("SELECT seq FROM cursor").fetchone()[0] <= head


async def test_backup_is_of_one_moment(tmp_path: Path) -> None:
    """A bridge that writes while the copy is made neither waits nor is half in the copy."""
    path, copy = tmp_path / "bridge.db", tmp_path / "copy.db"
    async with store.open_store(path) as db:
        await db.commit(sites(0, 1000))
        with reading(path) as raw:
            raw.close()
        loop_commits: list[int] = []

        def write_meanwhile(done: int, of: int) -> None:
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("INSERT INTO removed VALUES ('site', ?, 1)", (f"x{done}",))
            loop_commits.append(done)
            assert of < 10_000

        backup.PAGES, pages = 4, backup.PAGES
        try:
            backup.write_backups([backup.Source(path, copy)], progress=write_meanwhile)
        finally:
            backup.PAGES = pages

    assert len(loop_commits) > 5
    with reading(copy) as raw:
        assert raw.execute("SELECT count(*) FROM removed").fetchone()[0] == 0
        assert raw.execute("SELECT count(*) FROM record").fetchone()[0] == 1000


async def test_backup_replaces_nothing_unless_forced(tmp_path: Path) -> None:
    """A file that exists is left as it is, with one sentence; `--force` replaces it."""
    path, copy = tmp_path / "bridge.db", tmp_path / "copy.db"
    async with store.open_store(path) as db:
        await db.commit(sites(0, 3))
        copy.write_text("mine")
        with pytest.raises(backup.BackupError, match="exists already"):
            backup.write_backups([backup.Source(path, copy)])
        assert copy.read_text() == "mine"
        backup.write_backups([backup.Source(path, copy)], force=True)
    assert_counts(copy, 3)


def assert_counts(copy: Path, records: int) -> None:
    with reading(copy) as db:
        assert db.execute("SELECT count(*) FROM record").fetchone()[0] == records


@pytest.mark.parametrize("name", ["bridge.db", "bridge.db-wal", "bridge.db.lock", ".", "nowhere/copy.db"])
async def test_backup_to_an_impossible_place_is_a_sentence(tmp_path: Path, name: str) -> None:
    """The database's own files, a directory, and a place that is not there are refused, and nothing is left behind."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path) as db:
        await db.commit(sites(0, 3))
        before = sorted(tmp_path.iterdir())
        with pytest.raises(backup.BackupError, match=r"name (another file|a file)"):
            backup.write_backups([backup.Source(path, tmp_path / name)], force=True)
        assert sorted(tmp_path.iterdir()) == before
        assert await db.records.count("site") == 3


@pytest.mark.parametrize(
    ("content", "sentence"),
    [(None, "does not exist"), ("no database " * 500, "cannot be read as the bridge's database")],
)
async def test_backup_of_no_database_is_one_sentence(world: harness.World, content: str | None, sentence: str) -> None:
    """Without a database that can be read there is no copy: exit code 1 and one sentence."""
    if content is not None:
        (world.directory / "bridge.db").write_text(content)
    copy = world.directory / "copy.db"
    code, out, err = await harness.command("backup", str(copy), "-c", str(world.config()))

    assert (code, out) == (1, "")
    assert sentence in err
    assert len(err.strip().splitlines()) == 1
    assert not list(copy.parent.glob("copy.db*"))


async def test_copy_has_a_journal_id_of_its_own_once(tmp_path: Path) -> None:
    """New rows of a restored copy get ids that were never used; the rows that it has keep theirs."""
    path, copy = tmp_path / "bridge.db", tmp_path / "copy.db"
    async with store.open_store(path) as db:
        await db.commit(sites(0, 5))
        backup.write_backups([backup.Source(path, copy)])
        async with store.open_store(copy) as other:
            assert other.journal_id != db.journal_id
            assert other.earlier == ((db.journal_id, 5),)
            assert await other.commit(sites(5, 1)) == 6
            renewed = other.journal_id
        async with store.open_store(copy) as other:
            assert other.journal_id == renewed


async def test_journal_can_be_renewed_again_and_again(tmp_path: Path) -> None:
    """Each row keeps the id under which it went out first, over restarts."""
    path = tmp_path / "bridge.db"
    async with store.open_store(path) as db, journal.open_journal(path, "mqtt") as rows:
        first = db.journal_id
        second, earlier = await rows.identity.renew(3)
        assert earlier == ((first, 3),)
        third, earlier = await rows.identity.renew(8)
    async with store.open_store(path) as db:
        assert (db.journal_id, db.earlier) == (third, ((first, 3), (second, 8)))
    assert len({first, second, third}) == 3


# ── a database that is older than what was published, or another one ───────────────────────────


def ids_heard(recorder: harness.Recorder) -> dict[str, str]:
    """The ids of all events that were heard, each with its payload; an id that has two is a broken promise."""
    states: dict[str, str] = {}
    for topic, payload, _ in recorder.raw:
        if "/event/" in topic:
            content = payload.decode()
            assert states.setdefault(json.loads(content)["id"], content) == content
    return states


async def published(made: Bench, recorder: harness.Recorder) -> None:
    """Publishes what the journal has, to the head."""
    start, head = len(recorder.messages), await made.rows.head()
    async with made.publishing():
        await made.drained()
        await recorder.until(
            lambda: any(
                topic == f"{made.base}/bridge/head" and content["seq"] == head
                for topic, content, _ in recorder.messages[start:]
            )
        )


@pytest.mark.parametrize("way", ["backup", "plain copy"])
async def test_restored_database_uses_no_event_id_twice(tmp_path: Path, way: str) -> None:
    """After a backup was restored, rows get the same numbers with other content, but no event the same id."""
    port, path, copy = mosquitto.free_port(), tmp_path / "bench.db", tmp_path / "copy.db"
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 10))
            await published(made, recorder)
            if way == "backup":
                backup.write_backups([backup.Source(path, copy)])
            else:
                await made.store._connections._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                shutil.copy(path, copy)
            await made.store.commit(sites(10, 5))
            await published(made, recorder)
        restored(copy, tmp_path, "bench.db")
        before = len(recorder.messages)
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(20, 5))
            await published(made, recorder)
            assert [alert.split(":")[0] for alert in made.alerts] == ["database_restored"]
            repeated = {topic for topic, _, _ in recorder.messages[before:] if topic.endswith("/state")}
            assert repeated == {f"oneweb/site/s{n}/state" for n in (*range(10), *range(20, 25))}
            assert made.lost == [0]
            async with made.publishing() as running:
                await recorder.until(lambda: running.connected_since is not None)
                await recorder.quiet(0.3)
            assert len(made.alerts) == 1

    assert len(ids_heard(recorder)) == 20


async def test_backup_that_is_restored_twice_uses_no_event_id_twice(tmp_path: Path) -> None:
    """Each restore of the same backup has a journal id that nobody had, also where the broker knows no head."""
    port, copy, journals = mosquitto.free_port(), tmp_path / "copy.db", set[str]()
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 10))
            await published(made, recorder)
            backup.write_backups([backup.Source(tmp_path / "bench.db", copy)])
        for turn in range(1, 4):
            restored(copy, tmp_path, "bench.db")
            async with bench(tmp_path, port) as made:
                journals.add(made.store.journal_id)
                await made.store.commit(sites(10 * turn, 5))
                await published(made, recorder)
            await harness.publish(port, "oneweb/bridge/head", retain=True)

    assert len(journals) == 3
    assert len(ids_heard(recorder)) == 25


async def test_plain_copy_that_is_restored_twice_uses_no_event_id_twice(tmp_path: Path) -> None:
    """A copy that no command made has its journal's own id each time: it is told by the head of another journal."""
    port, path, copy = mosquitto.free_port(), tmp_path / "bench.db", tmp_path / "copy.db"
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 10))
            await published(made, recorder)
            await made.store._connections._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copy(path, copy)
            await made.store.commit(sites(10, 5))
            await published(made, recorder)
        for turn in range(2, 5):
            restored(copy, tmp_path, "bench.db")
            async with bench(tmp_path, port) as made:
                await made.store.commit(sites(10 * turn, 5))
                await published(made, recorder)
                assert len(made.alerts) == 1

    assert len(ids_heard(recorder)) == 30


async def test_second_restore_is_told_as_the_first(tmp_path: Path) -> None:
    """Also when what the broker knows last comes from another restore of the same backup, that is alerted."""
    port, copy = mosquitto.free_port(), tmp_path / "copy.db"
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 5))
            await published(made, recorder)
            backup.write_backups([backup.Source(tmp_path / "bench.db", copy)])
        for turn, alerts in ((1, 0), (2, 1)):
            restored(copy, tmp_path, "bench.db")
            async with bench(tmp_path, port) as made:
                await made.store.commit(sites(10 * turn, 2))
                await published(made, recorder)
                assert len(made.alerts) == alerts


async def test_alert_of_a_restore_counts_what_vanished(tmp_path: Path) -> None:
    """Retained topics of what the backup does not know are counted, and the alert names what clears them."""
    port, copy = mosquitto.free_port(), tmp_path / "copy.db"
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 5))
            await published(made, recorder)
            backup.write_backups([backup.Source(tmp_path / "bench.db", copy)])
            await made.store.commit(sites(5, 3))
            await published(made, recorder)
        restored(copy, tmp_path, "bench.db")
        async with bench(tmp_path, port) as made, made.publishing():
            await until_alerted(made)
            assert "3 retained topics below oneweb are of what the backup does not know" in made.alerts[0]
            assert "request/purge" in made.alerts[0]


async def until_alerted(made: Bench) -> None:
    """Waits for the first alert."""
    async with asyncio.timeout(20):
        while not made.alerts:
            await asyncio.sleep(0.02)


async def test_restore_under_another_name_leaves_the_first_bridge_alone(tmp_path: Path) -> None:
    """A restored copy forgets where its original was published: with another instance it is another bridge."""
    path, copy = tmp_path / "bridge.db", tmp_path / "copy.db"
    async with store.open_store(path), journal.open_journal(path, "mqtt") as rows:
        await rows.identity.note_place(Place("oneweb", "main"))
        backup.write_backups([backup.Source(path, copy)])
    async with store.open_store(copy), journal.open_journal(copy, "mqtt") as rows:
        assert (await rows.identity.read()).places == ()


async def test_renamed_instance_goes_on(tmp_path: Path) -> None:
    """Under a new `instance` the head of the same database is its own: the bridge publishes, and alerts nothing."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 3))
            await published(made, recorder)
        for name in ("renamed", "main"):
            async with bench(tmp_path, port) as made:
                made.instance = name
                await made.store.commit(sites(0, 3))
                await published(made, recorder)
                assert made.alerts == []
            assert (await harness.retained(port))["oneweb/bridge/head"]["instance"] == name


async def test_replay_of_a_restored_database_has_the_old_ids(tmp_path: Path) -> None:
    """What was published before keeps its ids, also when it is replayed after the journal got a new one."""
    port, copy = mosquitto.free_port(), tmp_path / "copy.db"
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 3))
            await published(made, recorder)
            backup.write_backups([backup.Source(tmp_path / "bench.db", copy)])
        known = set(ids_heard(recorder))
        restored(copy, tmp_path, "bench.db")
        async with bench(tmp_path, port) as made, made.publishing() as running:
            await recorder.until(lambda: running.connected_since is not None)
            before = len(recorder.messages)
            assert await running.replay(made.pages()) == 3
            await recorder.until(lambda: replayed_ids(recorder, before) == known)

    assert made.alerts == []


def replayed_ids(recorder: harness.Recorder, start: int) -> set[str]:
    """The ids of the events that were heard since a message."""
    return {event["id"] for topic, event, _ in recorder.messages[start:] if "/event/" in topic}


async def test_lost_database_clears_nothing(tmp_path: Path) -> None:
    """A new database finds everything as `added` with other ids, restores it, and clears or removes nothing."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port) as recorder:
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 5))
            await published(made, recorder)
        for path in state_files(tmp_path, "bench.db"):
            path.unlink()
        before = len(recorder.messages)
        async with bench(tmp_path, port) as made:
            await made.store.commit(sites(0, 4))
            await published(made, recorder)
        later = recorder.messages[before:]
        assert not [topic for topic, content, _ in later if content is None or topic.endswith("/removed")]
        assert "oneweb/site/s4/state" in await harness.retained(port)

    assert len(ids_heard(recorder)) == 9


@pytest.mark.parametrize("way", ["restored", "lost"])
async def test_bridge_goes_on_after_its_database_was(tmp_path: Path, way: str) -> None:
    """The whole bridge with a restored or a lost database: nothing invented, nothing lost, all as the API shows it."""
    async with harness.world(tmp_path, terminals=6) as world:
        world.api.freeze()
        config, copy = world.config(homeassistant={"enabled": True}), tmp_path / "copy.db"
        async with harness.recording(world.port) as recorder, harness.running(config) as bridge:
            await recorder.until(lambda: is_at_rest(recorder))
            assert (await harness.command("backup", str(copy), "-c", str(config)))[0] == 0
            changed = world.api.truth("terminals")[1]["id"]
            world.api.fleet("set_state", id=changed, state="degraded")
            await harness.poll(world.port, "user_terminals")
            await recorder.until(lambda: recorder.on(f"oneweb/terminal/{changed}/event/changed"))
            await bridge.stop()
        if way == "restored":
            restored(copy, tmp_path)
        else:
            for path in state_files(tmp_path):
                path.unlink()
        async with harness.recording(world.port, "oneweb/#", "homeassistant/#") as later:
            known = await harness.retained(world.port, "oneweb/#", "homeassistant/#")
            await later.until(lambda: known.keys() <= later.retained.keys())
            before, old = len(later.messages), await harness.retained(world.port, "homeassistant/#")
            async with harness.running(config):
                await two_more_polls(later, world.port)
                await later.until(lambda: old.keys() <= {topic for topic, _, _ in later.messages[before:]})
                assert await wrong(later, before, world) == []
        ids_heard(later)
        assert not [t for t in later.topics() if t.endswith("/event/removed")]
        alerts = [alert["kind"] for alert in later.on("oneweb/bridge/alert")]
        assert alerts == (["database_restored"] if way == "restored" else [])


async def two_more_polls(recorder: harness.Recorder, port: int) -> None:
    """Has every call succeed twice from now on, so that what is retained is what the API shows."""
    calls = [f"oneweb/bridge/polling/{call}/state" for call in harness.QUICK]
    before = {topic: recorder.retained.get(topic, {}).get("last_success", "") for topic in calls}
    await recorder.until(lambda: recorder.retained.get("oneweb/bridge/status") == {"state": "online"})
    for _ in range(2):
        await harness.poll(port)
        await recorder.until(partial(_succeeded_since, recorder, before))
        before = {topic: recorder.retained[topic]["last_success"] for topic in calls}


def _succeeded_since(recorder: harness.Recorder, before: dict[str, str]) -> bool:
    return all(recorder.retained.get(topic, {}).get("last_success", "") > then for topic, then in before.items())


async def wrong(recorder: harness.Recorder, before: int, world: harness.World) -> list[str]:
    """What a subscriber may complain of that came when the retained topics were restored, which the head ends."""
    retained = await harness.retained(world.port)
    restored_at = next(i for i in range(before, len(recorder.raw)) if recorder.raw[i][0] == "oneweb/bridge/head")
    published: list[Any] = [
        message for message in recorder.raw[restored_at:] if not message[0].startswith("homeassistant/")
    ]
    story = checker.Story(ledger=world.ledger, received=published, retained=None, whole=False)
    return truth.differences(retained, truth.expected(world.api)) + checker.judge(story)
