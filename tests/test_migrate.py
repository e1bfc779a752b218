"""`migrate`: a whole state from SQLite to PostgreSQL and back, or nothing."""

import asyncio
import contextlib
import importlib.util
import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from oneweb_bridge.cli import main, migrate
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.store import database, moving_files
from oneweb_bridge.store.moving import SLICE_ROWS
from oneweb_bridge.store.moving_server import ServerTarget, open_server
from oneweb_bridge.store.postgres_views import VIEW_FIELDS
from oneweb_bridge.trends import file as trends_file
from oneweb_bridge.trends.file import open_trends
from oneweb_bridge.trends.pending import FACTS
from tests import harness, truth
from tests.campaign import is_at_rest
from tests.leases import ask, claimed, worker
from tests.past import BEGIN, Past, sample, usage
from tests.places import TEMPLATE, held
from tests.postgres import Cluster

JOURNAL_ID = "0123456789abcdef"
BOOLEANS = {"complete", "released", "remapped", "remembered", "told"}
Contents = dict[str, list[tuple[Any, ...]]]


@pytest.fixture
def empty_url(cluster: Cluster) -> Iterator[str]:
    """A database in which nothing was made yet."""
    name = f"moved_{mosquitto.free_port()}"
    cluster.execute(f"CREATE DATABASE {name}")
    yield cluster.url_of(name)
    cluster.execute(f"DROP DATABASE {name} WITH (FORCE)")


def value(column: str, type_: str, number: int) -> Any:
    """A value for a column that is not the same in any two rows; texts have what PostgreSQL cannot hold."""
    if type_ == "INTEGER":
        return number % 2 if column in BOOLEANS else (number << 40) + 7
    if type_ == "BLOB":
        return bytes([0, number, 255, 92])
    return json.dumps({"name": f"é\U0001f6f0\\{number}"}) if column == "doc" else f"{column}\0\U0010ffff'\"\\\t{number}"


def fill(path: Path, script: str, version: int) -> None:
    """Makes a file with some rows in each of its tables."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(f"{script}\nPRAGMA user_version = {version};")
        for table in moving_files.Layout(script, version, "").tables():
            types = {name: type_ for _, name, type_, *_ in db.execute(f'PRAGMA table_info("{table.name}")')}
            rows = [[value(column, types[column], number) for column in table.columns] for number in (1, 2, 3)]
            marks = ", ".join("?" * len(types))
            db.executemany(f'INSERT INTO "{table.name}" VALUES ({marks})', [] if table.name == "meta" else rows)
        db.commit()


def make_state(directory: Path, instance: str = "main", *, with_trends: bool = True) -> Path:
    """A state with something in every table, of which the newest rows of the journal are gone."""
    directory.mkdir(exist_ok=True)
    path = directory / "bridge.db"
    fill(path, database.schema_script(), database.VERSION)
    places = json.dumps([["oneweb", instance], ["old", instance]])
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executemany("INSERT INTO meta VALUES (?, ?)", [("journal", JOURNAL_ID), ("places", places), ("x", "\0")])
        db.execute("UPDATE sqlite_sequence SET seq = seq + 5")
        db.execute("INSERT INTO cursor (output, seq, restore_from) VALUES ('mqtt', 3, NULL)")
        db.commit()
    if with_trends:
        fill(path.with_name("bridge.trends.db"), trends_file.schema_script(), trends_file.VERSION)
        with contextlib.closing(sqlite3.connect(path.with_name("bridge.trends.db"))) as db:
            db.execute("INSERT INTO meta VALUES ('scan', ?)", (json.dumps({"journal_id": JOURNAL_ID, "seq": 3}),))
            db.commit()
    return path


def contents(path: Path) -> Contents:
    """Every row of every table in the files of a state."""
    rows: Contents = {}
    for file in (path, path.with_name(f"{path.stem}.trends.db")):
        if file.exists():
            with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as db:
                names = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
                rows |= {
                    f"{file.name.removeprefix(path.stem)} {name}": sorted(
                        db.execute(f'SELECT * FROM "{name}"'), key=repr
                    )
                    for name in names
                    if not name.startswith("sqlite_stat")
                }
    return rows


def stored(url: str) -> Contents:
    """Every row of every table in a database."""
    names = ask(
        url,
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname LIKE 'oneweb%' ORDER BY 1",
    )
    return {name: sorted(ask(url, f"SELECT * FROM {name}"), key=repr) for (name,) in names}


def files_in(directory: Path) -> dict[str, bytes]:
    """What is in a folder, but for locks and for what SQLite leaves beside what it reads."""
    ignored = (".lock", "-shm", "-wal")
    files = [path for path in directory.iterdir() if path.is_file() and not path.name.endswith(ignored)]
    return {path.name: path.read_bytes() for path in files}


def move(source: Path | str, target: Path | str, *more: str) -> int:
    return main.main(["migrate", "--from", str(source), "--to", str(target), *more])


def refused(capsys: pytest.CaptureFixture[str], code: int, source: Path | str, target: Path | str, *more: str) -> str:
    """The one sentence with which a move ends."""
    assert move(source, target, *more) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("oneweb-bridge: ")
    return err


# ── whole ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.postgres
@pytest.mark.parametrize("with_trends", [True, False])
def test_there_and_back_is_the_same(
    tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str], with_trends: bool
) -> None:
    """Every row of every table, the journal's id and the numbers that are never given again; the source stays."""
    path, back = make_state(tmp_path / "a", with_trends=with_trends), tmp_path / "bridge.db"
    before, files = contents(path), files_in(path.parent)
    assert move(path, url) == 0
    assert move(url, back) == 0
    assert contents(back) == before
    assert files_in(path.parent) == files
    assert all(rows for name, rows in before.items()), "a table of the test's state has no rows"
    assert (
        f"main: 3 records, 3 rows of the journal, trends of {3 if with_trends else 0} streams are in PostgreSQL now"
        in (capsys.readouterr().out)
    )
    assert back.stat().st_mode & 0o777 == 0o600
    assert sorted(files_in(tmp_path)) == (["bridge.db", "bridge.trends.db"] if with_trends else ["bridge.db"])
    with contextlib.closing(sqlite3.connect(back)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("PRAGMA user_version").fetchone() == (database.VERSION,)


@pytest.mark.postgres
def test_state_of_a_killed_bridge_is_whole(tmp_path: Path, url: str) -> None:
    """What its last transactions wrote is in the log beside the file."""
    path = make_state(tmp_path / "a", with_trends=False)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO removed VALUES ('site', 'late', 1)")
        (tmp_path / "b").mkdir()
        for name in ("bridge.db", "bridge.db-wal"):
            shutil.copy(path.with_name(name), tmp_path / "b" / name)
    assert move(tmp_path / "b" / "bridge.db", url) == 0
    assert ask(url, "SELECT at FROM oneweb.removed WHERE id = 'late'") == [(1,)]


@pytest.mark.postgres
def test_what_only_postgresql_needs_stays_there(tmp_path: Path, url: str) -> None:
    """Which columns the views of an instance have is no fact of its file."""
    path, back = make_state(tmp_path / "a"), tmp_path / "back.db"
    assert move(path, url) == 0
    ask(url, f"INSERT INTO oneweb_main.meta VALUES ('{VIEW_FIELDS}', 'x')")
    assert move(url, back) == 0
    assert contents(back) == contents(path)


@pytest.mark.postgres
def test_each_table_of_one_engine_is_in_the_other(cluster: Cluster) -> None:
    """With the same columns: so a new table, or a new column, cannot stay behind."""
    rows = ask(
        cluster.url_of(TEMPLATE),
        "SELECT table_name, column_name FROM information_schema.columns JOIN information_schema.tables "
        "USING (table_schema, table_name) WHERE table_schema = 'oneweb_main' AND table_type = 'BASE TABLE'",
    )
    server = {row for row in rows if row[1] != "instance"} - {("journal_head", "seq"), ("journal", "epoch")}
    assert server == {(t.name, column) for t in migrate.files_of(Path("x")).tables() for column in t.columns}


async def test_facts_of_the_trends_are_known(past: Past) -> None:
    """What the trends note in the table that PostgreSQL has once for both goes back into their file."""
    await past.write(sample(BEGIN, sinr_db=1.0), usage(BEGIN, 2.0))
    past.fold()
    with open_trends(past.trends, read_only=True) as file:
        assert {row[0] for row in file._db.execute("SELECT name FROM meta")} == FACTS
    with contextlib.closing(sqlite3.connect(past.path)) as db:
        assert not {row[0] for row in db.execute("SELECT name FROM meta")} & FACTS


@pytest.mark.postgres
def test_numbers_go_on(tmp_path: Path, empty_url: str) -> None:
    """The journal goes on behind the last row that was ever written, and new rows get numbers that are free."""
    assert move(make_state(tmp_path), empty_url) == 0
    last = (3 << 40) + 7
    assert ask(empty_url, "SELECT seq FROM oneweb.journal_head") == [(last + 5,)]
    for sequence, number in (("newest_stream", last), ("stream_number", last), ("poll_request_number", last + 5)):
        assert ask(empty_url, f"SELECT nextval('oneweb_main.{sequence}')") == [(number + 1,)]


@pytest.mark.postgres
async def test_epoch_goes_on_in_postgresql(tmp_path: Path, url: str) -> None:
    """Rows that are moved have the epoch of the last holder, 0 where there was none, and the next one gets the next."""
    path = make_state(tmp_path)
    assert await asyncio.to_thread(move, path, url) == 0
    assert set(ask(url, "SELECT epoch FROM oneweb.journal")) == {(0,)}
    for epoch in (1, 2):
        async with held(url) as server:
            assert server.fence is not None
            assert server.fence.epoch == epoch
    ask(url, "DROP SCHEMA oneweb_main CASCADE")
    assert await asyncio.to_thread(move, path, url) == 0
    assert set(ask(url, "SELECT epoch FROM oneweb.journal")) == {(2,)}
    async with held(url) as server:
        assert server.fence is not None
        assert server.fence.epoch == 3


@pytest.mark.postgres
def test_one_of_several_instances_is_moved(tmp_path: Path, empty_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that is named; without a name nothing is, and others in the database stay as they are."""
    for instance in ("a", "b"):
        assert move(make_state(tmp_path / instance, instance), empty_url) == 0
    before, back = stored(empty_url), tmp_path / "back.db"
    capsys.readouterr()
    assert "has the state of a, b: add --instance" in refused(capsys, 2, empty_url, back)
    assert "not of c" in refused(capsys, 1, empty_url, back, "--instance", "c")
    assert move(empty_url, back, "--instance", "b") == 0
    assert stored(empty_url) == before
    (places,) = [row[1] for row in contents(back)[".db meta"] if row[0] == "places"]
    assert json.loads(places)[0] == ["oneweb", "b"]


@pytest.mark.postgres
def test_configuration_names_instance_and_trends(tmp_path: Path, url: str) -> None:
    """With `-c` the trends are where `trends.path` says."""
    path = make_state(tmp_path)
    path.with_name("bridge.trends.db").rename(tmp_path / "elsewhere.db")
    config = tmp_path / "bridge.yaml"
    config.write_text(f"trends: {{path: {tmp_path}/elsewhere.db}}\n")
    assert move(path, url, "-c", str(config)) == 0
    assert ask(url, "SELECT count(*) FROM oneweb.fine") == [(3,)]
    config.write_text(f"trends: {{path: {tmp_path}/new.db}}\n")
    assert move(url, tmp_path / "back.db", "-c", str(config)) == 0
    assert sorted(files_in(tmp_path)) == ["back.db", "bridge.db", "bridge.yaml", "elsewhere.db", "new.db"]


@pytest.mark.postgres
def test_long_journal_needs_little_memory(tmp_path: Path, url: str) -> None:
    """Rows go through in slices, there and back."""
    path, rows, size = make_state(tmp_path, with_trends=False), 5000, 5000
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executemany(
            "INSERT INTO journal (seq, at, entity, id, what, name, ts, body) VALUES (?, 0, 'e', 'i', 'w', 'n', 0, ?)",
            [(number, bytes(size)) for number in range(1, rows + 1)],
        )
        db.commit()
    tracemalloc.start()
    try:
        assert move(path, url) == 0
        assert move(url, tmp_path / "back.db") == 0
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * SLICE_ROWS * size < rows * size / 2


# ── or not at all ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.postgres
def test_target_with_a_state_is_left_alone(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever is there of the instance stays as it is; tables without a row are no state."""
    path = make_state(tmp_path / "a")
    assert move(path, url) == 0
    capsys.readouterr()
    before, files = stored(url), files_in(path.parent)
    assert "has a state of the instance main already" in refused(capsys, 1, path, url)
    assert stored(url) == before
    assert "exists already" in refused(capsys, 1, url, path)
    other = tmp_path / "other.db"
    for name in ("other.trends.db", "other.db-wal", "other.trends.db-wal"):
        left = tmp_path / name
        left.write_bytes(b"mine")
        assert str(left) in refused(capsys, 1, url, other)
        assert left.read_bytes() == b"mine"
        left.unlink()
    assert files_in(path.parent) == files
    assert files_in(tmp_path / "a") == files
    assert not other.exists()


@pytest.mark.postgres
async def test_state_that_a_bridge_has_open_is_not_moved(
    tmp_path: Path, empty_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither a file that is locked, nor an instance whose lease is held; nothing is made anywhere."""
    path, back = make_state(tmp_path / "a"), tmp_path / "back.db"
    with database.hold_lock(path):
        assert "is in use by another bridge" in await asyncio.to_thread(refused, capsys, 1, path, empty_url)
    assert stored(empty_url) == {}
    assert await asyncio.to_thread(move, path, empty_url) == 0
    capsys.readouterr()
    async with held(empty_url):
        before = stored(empty_url)
        assert "held by the worker tester" in await asyncio.to_thread(refused, capsys, 1, empty_url, back)
        assert "held by the worker tester" in await asyncio.to_thread(refused, capsys, 1, path, empty_url)
        assert stored(empty_url) == before
    assert await asyncio.to_thread(move, empty_url, back) == 0


@pytest.mark.postgres
async def test_worker_waits_until_the_state_is_moved(tmp_path: Path, url: str) -> None:
    """It does not take the instance, and is not held up with others that it has, also one whose tables it must make."""
    path = make_state(tmp_path)
    assert await asyncio.to_thread(move, path, url) == 0
    async with worker(url, "a") as a:
        async with open_server(url) as server, server.read("main"):
            assert await a.claim("main") is None
            assert await a.claim("other") is not None
        place = await claimed(a, url)
        assert place.fence is not None
        assert place.fence.epoch == 1
        async with open_server(url) as server, server.write("third"):
            async with asyncio.timeout(10):
                assert await a.claim("third") is None
                assert await a.claim("fourth") is None
                assert set((await a.renew(["main", "other"])).leases) == {"main", "other"}
        assert await a.claim("fourth") is not None


@pytest.mark.postgres
async def test_error_in_the_middle_leaves_nothing(
    tmp_path: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither tables in PostgreSQL nor files, whichever side fails; then it is moved."""
    path, back = make_state(tmp_path / "a"), tmp_path / "bridge.db"

    def fail(*_: Any) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    async def fail_later(*_: Any) -> None:
        raise psycopg.errors.DiskFull("could not extend file: No space left on device\nDETAIL: x")

    with monkeypatch.context() as broken:
        broken.setattr(ServerTarget, "write_counters", fail_later)
        assert "No space left on device, and nothing was moved" in await asyncio.to_thread(
            refused, capsys, 1, path, empty_url
        )
    assert stored(empty_url) == {}
    assert await asyncio.to_thread(move, path, empty_url) == 0
    capsys.readouterr()
    with monkeypatch.context() as broken:
        broken.setattr(moving_files, "_fsync", fail)
        assert "disk is full), and nothing was moved" in await asyncio.to_thread(refused, capsys, 1, empty_url, back)
    assert files_in(tmp_path) == {}
    assert await asyncio.to_thread(move, empty_url, back) == 0


@pytest.mark.postgres
def test_interrupted_move_is_told(
    tmp_path: Path, empty_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-C ends it with exit code 1, so that no script goes on as if it were done."""

    async def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    path = make_state(tmp_path)
    monkeypatch.setattr(ServerTarget, "write_counters", interrupt)
    assert "interrupted, and nothing was moved" in refused(capsys, 1, path, empty_url)
    assert stored(empty_url) == {}


KILLED = """
import os, signal, sys
from pathlib import Path
from oneweb_bridge.cli import main
from oneweb_bridge.store import moving_files, moving_server

def end(*_):
    os.kill(os.getpid(), signal.SIGKILL)

end_at = sys.argv[1]
if end_at == "server":
    moving_server.ServerTarget.write_counters = end
elif end_at == "written":
    moving_files._fsync = end
else:
    moving_files._fsync = lambda path: end() if path.is_dir() else None
sys.exit(main.main(["migrate", *sys.argv[2:]]))
"""


def killed(at: str, source: Path | str, target: Path | str) -> None:
    """A move that is killed at some moment."""
    command = [sys.executable, "-c", KILLED, at, "--from", str(source), "--to", str(target)]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL


@pytest.mark.postgres
def test_killed_move_leaves_no_state(tmp_path: Path, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is there then is no database for a bridge, and the move can be made again, and is whole then."""
    path, back = make_state(tmp_path / "a"), tmp_path / "bridge.db"
    killed("server", path, url)
    assert move(path, url) == 0
    for at in ("written", "named"):
        killed(at, url, back)
        assert not back.exists()
    assert back.with_name("bridge.trends.db").exists()
    assert move(url, back) == 0
    assert contents(back) == contents(path)
    assert sorted(files_in(tmp_path)) == ["bridge.db", "bridge.trends.db"]
    assert "nothing was moved" not in capsys.readouterr().err


# ── sentences ──────────────────────────────────────────────────────────────────────────────────

NOWHERE = "postgresql://bridge:s3cr3t-word@127.0.0.1:{}/x"


def old_and_new(directory: Path) -> None:
    """Files that are no state of this version."""
    (directory / "text.db").write_text("no database " * 500)
    (directory / "empty.db").touch()
    for name, version, table in (("old.db", 3, "meta"), ("new.db", 99, "meta"), ("other.db", 0, "things")):
        with contextlib.closing(sqlite3.connect(directory / name)) as db:
            db.execute(f"CREATE TABLE {table} (name, value)")
            db.execute(f"PRAGMA user_version = {version}")


@pytest.mark.parametrize(
    "case",
    [
        (1, "missing.db", NOWHERE, "does not exist"),
        (1, ".", NOWHERE, "cannot be opened as a database"),
        (1, "text.db", NOWHERE, "cannot be read as the bridge's database"),
        (1, "empty.db", NOWHERE, "is empty"),
        (1, "old.db", NOWHERE, "older oneweb-bridge (schema 3, needed"),
        (1, "new.db", NOWHERE, "newer oneweb-bridge (schema 99, known"),
        (1, "other.db", NOWHERE, "a database of something else"),
        (2, "unpublished.db", NOWHERE, "add --instance or -c"),
        (1, "unpublished.db --instance main", NOWHERE, "Connection refused"),
        (1, NOWHERE, "new/bridge.db", "Connection refused"),
        (2, "a.db", "b.db", "got two files: 'backup'"),
        (2, NOWHERE, NOWHERE, "got two addresses: use pg_dump"),
        (2, "a.db", "mysql://u:s3cr3t-word@h/d", "expected a file name, or an address like postgresql://"),
        (2, "a.db", "postgresql:/u:s3cr3t-word@h/d", "expected a file name, or an address like postgresql://"),
        (2, "a.db", "postgresql://u:s3cr3t-/word@h/d", "escape special characters"),
        (1, "postgresql://u:s3cr3t-word@h/d?host=[s3cr3t-word", "a.db", "PostgreSQL: "),
        (1, "postgresql://u@h/d?nothing=s3cr3t-word", "a.db", "its parameters are not those of libpq"),
        (2, "a.db --instance a/b", NOWHERE, "--instance: expected 1 to 64"),
        (2, "a.db", "", "expected a file name"),
    ],
)
def test_what_cannot_be_moved_is_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: tuple[int, str, str, str],
) -> None:
    """It says what is wrong, never a password, and nothing is made."""
    code, source, target, sentence = case
    old_and_new(tmp_path)
    if source.startswith("unpublished.db"):
        fill(tmp_path / "unpublished.db", database.schema_script(), database.VERSION)
    monkeypatch.chdir(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    port = mosquitto.free_port()
    source, *more = source.format(port).split(" ") if "{" in source else source.split(" ")
    error = refused(capsys, code, source, target.format(port) if "{" in target else target, *more)
    assert sentence in error
    assert "s3cr3t" not in error
    left = sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith((".lock", "-wal", "-shm")))
    assert left == before


@pytest.mark.postgres
def test_what_the_server_refuses_is_a_sentence(
    tmp_path: Path, empty_url: str, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """No database, an empty one, one of a newer program, a user without rights, a folder that is none."""
    path, back = make_state(tmp_path / "a"), tmp_path / "back.db"
    assert 'database "nowhere" does not exist' in refused(capsys, 1, path, cluster.url_of("nowhere"))
    assert "no state of any instance" in refused(capsys, 1, empty_url, back)
    cluster.execute("CREATE ROLE visitor LOGIN")
    assert "the right to make schemas" in refused(capsys, 1, path, empty_url.replace("bridge@", "visitor@"))
    assert stored(empty_url) == {}
    assert move(path, empty_url) == 0
    capsys.readouterr()
    (tmp_path / "file").touch()
    for name in ("no/back.db", "file/back.db"):
        assert str(tmp_path / name) in refused(capsys, 1, empty_url, tmp_path / name)
    ask(empty_url, "UPDATE oneweb.version SET version = 99")
    for given in ((empty_url, back), (path, empty_url)):
        assert "newer oneweb-bridge (schema 99" in refused(capsys, 1, *given)
    cluster.execute("DROP ROLE visitor")
    assert not back.exists()


def test_missing_driver_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    path = make_state(tmp_path)
    assert 'pip install "oneweb-bridge[postgres]"' in refused(capsys, 2, path, "postgresql://h/d")


# ── with a bridge ──────────────────────────────────────────────────────────────────────────────


class Moved:
    """A bridge whose state is moved between two runs, and what a subscriber sees of it."""

    def __init__(self, world: harness.World, recorder: harness.Recorder) -> None:
        self.world = world
        self.recorder = recorder
        self.changed = 0

    async def run(self, state: dict[str, Any]) -> dict[str, Any]:
        """Runs the bridge until a change of now is published. Returns what is retained when it has ended."""
        file = self.world.config(state=state, http={"listen": f"127.0.0.1:{mosquitto.free_port()}"})
        product = self.world.api.truth("products")[self.changed]["id"]
        events = f"oneweb/product/{truth.level(product)}/event/changed"
        async with harness.running(file) as process:
            await self.recorder.until(lambda: self.is_online() and is_at_rest(self.recorder), 60)
            self.world.api.fleet("suspend", id=product)
            self.changed += 1
            await harness.poll(self.world.port, "products")
            await self.recorder.until(lambda: self.recorder.on(events), 60)
            await self.recorder.until(self.is_published, 60)
            assert await process.stop() == 0
        await self.recorder.catch_up()
        return await harness.retained(self.world.port, "#")

    def is_online(self) -> bool:
        return bool((self.recorder.retained.get("oneweb/bridge/status") or {}).get("state") == "online")

    def is_published(self) -> bool:
        """Whether the head names the newest event."""
        seqs = [int(event["id"].split(":")[1]) for _, event, _ in self.events()]
        head = self.recorder.retained.get("oneweb/bridge/head") or {}
        return bool(head.get("seq", 0) >= max(seqs, default=0))

    def events(self) -> list[tuple[str, Any, bool]]:
        return [message for message in self.recorder.messages if "/event/" in message[0]]


@pytest.mark.postgres
async def test_bridge_goes_on_where_it_was(world: harness.World, url: str) -> None:
    """No event is repeated or lost, no retained topic but the bridge's own changes, and the journal is the same."""
    first, back = world.directory / "bridge.db", world.directory / "back.db"
    own = "oneweb/bridge/"
    async with harness.recording(world.port, "oneweb/#") as recorder:
        moved = Moved(world, recorder)
        journals, heads = [], []
        before = await moved.run({"path": str(first)})
        for state, source, target in (
            ({"path": None, "url": url}, first, url),
            ({"path": str(back)}, url, back),
        ):
            heads.append(before["oneweb/bridge/head"])
            code, _, error = await harness.command("migrate", "--from", str(source), "--to", str(target))
            assert (code, error) == (0, "")
            start = len(recorder.messages)
            after = await moved.run(state)
            touched = {topic for topic, _, _ in recorder.messages[start:] if not topic.startswith(own)}
            changed = {topic for topic in before if before[topic] != after.get(topic) and not topic.startswith(own)}
            assert changed <= touched
            assert not [topic for topic in touched if topic.startswith("homeassistant/")]
            assert {t for t in touched if "/state" in t} == {t for t in changed if "/state" in t}
            before = after
        heads.append(before["oneweb/bridge/head"])
        journals = [head["journal"] for head in heads]
        ids = [event["id"] for _, event, _ in moved.events()]
    assert len(set(journals)) == 1
    assert [head.get("epoch") for head in heads] == [None, 1, None]
    assert [head["seq"] for head in heads] == sorted(head["seq"] for head in heads)
    assert len(ids) == len(set(ids))
    assert not [
        event for _, event, _ in moved.events() if event["type"].endswith("added") and not event["data"]["initial"]
    ]
    assert truth.broken_chains(recorder.messages) == []
    assert truth.steps_back(recorder.messages) == []
    retained, wanted = (
        {topic: content for topic, content in contents_.items() if topic.startswith("oneweb/product/")}
        for contents_ in (before, truth.expected(world.api))
    )
    retained = {topic: content for topic, content in retained.items() if topic.endswith("/state")}
    assert truth.differences(retained, wanted) == []
