"""Row 14: the floor of the job. One sequential process does the same with the same rows and bytes, and nothing else.

    python -m bench.job DATABASE API_URL PORT        waits for a job, and does it when it is told to

The bridge, the real command, polls first. What it has written and published is then the job of the floor: get the
same answer, decode it, write the same records and journal rows in transactions of 1 000 flushed to the disk, publish
the same messages, and write the cursor, one after the other. Both publish with a window of 20 over one connection,
the bridge by MQTT 5, the floor by MQTT 3.1.1. The floor compares nothing, reads no field, and can resume nothing.
"""

import asyncio
import contextlib
import sqlite3
import sys
import tempfile
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from bench import floor, nodered
from bench.answers import PATH, Api, api
from bench.clock import ratios
from bench.nodered import Course, Shot
from bench.progress import say
from bench.scope import Scope, spelled
from bench.subscriber import subscribe
from bench.table import Row, of_rounds
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Row as JournalRow
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store import store
from tests.nodered.server import Usage

WINDOW = 20
SLICE = 1000
GOALS = {"first snapshot": 1.6, "all changed": 1.8}


class Job(msgspec.Struct):
    """What one poll of the bridge has left: rows of the tables `record` and `journal`, and messages with retain."""

    records: list[tuple[Any, ...]]
    rows: list[tuple[Any, ...]]
    messages: list[tuple[bytes, bytes, bool]]


# ── the floor, a process of its own ────────────────────────────────────────────────────────────


def _insert(table: str, columns: int) -> str:
    return f"INSERT OR REPLACE INTO {table} VALUES ({', '.join('?' * columns)})"


def do_job(job: Job, db: sqlite3.Connection, api_url: str, port: int) -> None:
    """The whole job, one step after the other."""
    with urllib.request.urlopen(f"{api_url}{PATH}", timeout=60) as answer:
        msgspec.json.decode(answer.read())
    for start in range(0, max(len(job.records), len(job.rows)), SLICE):
        db.execute("BEGIN IMMEDIATE")
        for table, lines in (("record", job.records), ("journal", job.rows)):
            if part := lines[start : start + SLICE]:
                db.executemany(_insert(table, len(part[0])), part)
        db.execute("COMMIT")
    asyncio.run(floor.drain(port, job.messages, WINDOW))
    db.execute("INSERT OR REPLACE INTO cursor (output, seq) VALUES ('mqtt', ?)", (job.rows[-1][0],))


async def _make_database(path: Path) -> None:
    async with store.open_store(path):
        pass


def main(arguments: list[str]) -> int:
    """Reads a job's file, says so, and does the job when it is told to; again and again until its input ends."""
    path, api_url, port = Path(arguments[0]), arguments[1], int(arguments[2])
    asyncio.run(_make_database(path))
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
        for line in sys.stdin:
            job = msgspec.msgpack.decode(Path(line.strip()).read_bytes(), type=Job)
            print("ready", flush=True)
            sys.stdin.readline()
            do_job(job, db, api_url, port)
    return 0


class Floor:
    """The sequential process as a peer."""

    topics = nodered.Bridge.topics
    page = 0

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.usage = Usage(process.pid)
        self._process = process

    async def load(self, file: Path) -> None:
        """Lets it read its next job, which is not part of the job."""
        await self._tell(str(file))
        assert self._process.stdout is not None
        assert await self._process.stdout.readline() == b"ready\n"

    async def trigger(self) -> None:
        """Lets it begin."""
        await self._tell("go")

    async def _tell(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n".encode())
        await self._process.stdin.drain()


@contextlib.asynccontextmanager
async def sequential(directory: Path, api_url: str, port: int) -> AsyncIterator[Floor]:
    """The sequential process with an empty database of the bridge's schema."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.job", str(directory / "floor.db"), api_url, str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Floor(process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


# ── what the bridge left ───────────────────────────────────────────────────────────────────────


def job_after(database: Path, seq: int) -> Job:
    """What the bridge wrote and published of terminals behind a row of its journal."""
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        journal_id = db.execute("SELECT value FROM meta WHERE name = 'journal'").fetchone()[0]
        rows = db.execute("SELECT * FROM journal WHERE seq > ? AND entity = 'terminal' ORDER BY seq", (seq,)).fetchall()
        tree = TopicTree("oneweb", "main", journal_id)
        messages = [message for row in rows for message in tree.messages_of_row(JournalRow(*row))]
        records = db.execute("SELECT * FROM record WHERE seq > ? AND kind != 'call'", (seq,)).fetchall()
    return Job(records, rows, [(message.topic.encode(), message.payload, message.retain) for message in messages])


def _last_row(database: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'journal'").fetchone()[0] or 0)


Pair = tuple[Shot, Shot]


async def _one_round(answers: dict[str, nodered.Answer]) -> dict[str, Pair]:
    async with contextlib.AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        listing: Api = await stack.enter_async_context(api())
        ports = [mosquitto.free_port() for _ in range(2)]
        for port in ports:
            await stack.enter_async_context(mosquitto.run_mosquitto(port))
        bridge = await stack.enter_async_context(
            nodered.bridge(directory, listing.url, ports[0], mqtt={"window": WINDOW})
        )
        peer = await stack.enter_async_context(sequential(directory, listing.url, ports[1]))
        subscribers = [await stack.enter_async_context(subscribe(port, peer.topics)) for port in ports]
        shots, database, seq = dict[str, Pair](), directory / "bridge.db", 0
        for scenario, answer in answers.items():
            course = Course(bridge, subscribers[0], listing, answer.records)
            mine = await course.shot(answer)
            job, file = job_after(database, seq), directory / "job"
            seq = _last_row(database)
            file.write_bytes(msgspec.msgpack.encode(job))
            await peer.load(file)
            theirs = await Course(peer, subscribers[1], listing, answer.records).shot(answer, len(job.messages))
            assert mine.messages == theirs.messages, f"{mine.messages} messages, the floor {theirs.messages}"
            shots[scenario] = mine, theirs
        return shots


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """Row 14."""
    terminals = scope.of(10_000)
    rounds: list[dict[str, Pair]] = []
    for number in range(scope.rounds):
        rounds.append(await _one_round(nodered.listings(terminals, tuple(GOALS))))
        say(f"the floor of the job: round {number + 1} of {scope.rounds}")
    for scenario, goal in GOALS.items():
        pairs = [shots[scenario] for shots in rounds]
        mine, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
        row = Row(
            number="14",
            what=f"{scenario} of {spelled(terminals)}, against the same rows and bytes in one sequential process",
            goal=goal,
            bridge=nodered.median_of(mine),
            floor=f"sequential: {nodered.median_of(theirs)}",
            note=f"{spelled(mine[0].messages)} messages each, window {WINDOW} and MQTT 5 on both sides",
        )
        wall, cpu = (
            ratios([getattr(shot, name) for shot in mine], [getattr(shot, name) for shot in theirs])
            for name in ("wall", "cpu")
        )
        yield of_rounds(row, wall, cpu)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
