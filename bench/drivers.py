"""Compares two drivers of PostgreSQL, psycopg 3 and asyncpg, with what the store does: python -m bench.drivers

Rows are those of a poll of reports: a journal row, a record, a newest sample and a known sample for each of 1000 ids.
Needs both drivers and PostgreSQL itself. CPU is that of this process; the server has its own.
"""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg

from tests.postgres import run_postgres

ROWS = 1000
ROUNDS = 20
SCHEMA = """
CREATE TABLE journal (seq bigint PRIMARY KEY, at bigint NOT NULL, entity text NOT NULL, id text NOT NULL,
what text NOT NULL, name text NOT NULL, ts bigint NOT NULL, body bytea NOT NULL);
CREATE TABLE record (kind text, id text, doc text NOT NULL, hash bytea, seq bigint, PRIMARY KEY (kind, id));
CREATE TABLE seen (stream bigint, ts bigint, hash bigint, PRIMARY KEY (stream, ts));
CREATE TABLE cursor (output text PRIMARY KEY, seq bigint);
"""
BODY = b'{"imei":"359235170006117","report":"signal_quality","time":"2025-06-17T13:40:07Z","ts":1750167607000}'
COLUMNS = ("seq", "at", "entity", "id", "what", "name", "ts", "body")
RECORD = """INSERT INTO record (kind, id, doc, hash, seq) VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (kind, id) DO UPDATE SET doc = excluded.doc, hash = excluded.hash, seq = excluded.seq"""
SEEN = """INSERT INTO seen (stream, ts, hash) VALUES ($1, $2, $3)
ON CONFLICT (stream, ts) DO UPDATE SET hash = excluded.hash"""
CURSOR = """INSERT INTO cursor VALUES ('mqtt', $1)
ON CONFLICT (output) DO UPDATE SET seq = excluded.seq WHERE excluded.seq > cursor.seq"""
PAGE = "SELECT seq, at, entity, id, what, name, ts, body FROM journal WHERE seq > $1 ORDER BY seq LIMIT 500"


def journal_rows(first: int) -> list[tuple[Any, ...]]:
    return [
        (first + n, first, "terminal", f"35923517{n:07d}", "metric", "signal_quality", first, BODY) for n in range(ROWS)
    ]


def record_rows(first: int) -> list[tuple[Any, ...]]:
    return [("terminal", f"35923517{n:07d}", BODY.decode(), b"h" * 16, first + n) for n in range(ROWS)]


def seen_rows(first: int) -> list[tuple[Any, ...]]:
    return [(n, first, n) for n in range(ROWS)]


class Psycopg:
    """What the store does, with psycopg 3."""

    name = f"psycopg {psycopg.__version__}"

    def __init__(self, db: "psycopg.AsyncConnection[Any]") -> None:
        self._db = db

    async def commit(self, first: int) -> None:
        async with self._db.transaction(), self._db.cursor() as cursor:
            async with cursor.copy(f"COPY journal ({', '.join(COLUMNS)}) FROM STDIN (FORMAT BINARY)".encode()) as copy:
                copy.set_types(("int8", "int8", "text", "text", "text", "text", "int8", "bytea"))
                for row in journal_rows(first):
                    await copy.write_row(row)
            await cursor.executemany(RECORD.encode(), record_rows(first))
            await cursor.executemany(SEEN.encode(), seen_rows(first))

    async def page(self, after: int) -> int:
        return len(await (await self._db.execute(PAGE.encode(), (after,), binary=True)).fetchall())

    async def move(self, seq: int) -> None:
        await self._db.execute(CURSOR.encode(), (seq,))


class Asyncpg:
    """The same with asyncpg."""

    name = f"asyncpg {asyncpg.__version__}"

    def __init__(self, db: Any) -> None:
        self._db = db

    async def commit(self, first: int) -> None:
        async with self._db.transaction():
            await self._db.copy_records_to_table("journal", records=journal_rows(first), columns=COLUMNS)
            await self._db.executemany(RECORD, record_rows(first))
            await self._db.executemany(SEEN, seen_rows(first))

    async def page(self, after: int) -> int:
        return len(await self._db.fetch(PAGE, after))

    async def move(self, seq: int) -> None:
        await self._db.execute(CURSOR, seq)


async def timed(work: Callable[[int], Awaitable[Any]], rounds: int) -> tuple[float, float]:
    """Median of milliseconds, of the wall and of this process's CPU."""
    walls, cpus = [], []
    for number in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        await work(number)
        walls.append((time.perf_counter() - wall) * 1000)
        cpus.append((time.process_time() - cpu) * 1000)
    return statistics.median(walls), statistics.median(cpus)


async def measure(driver: Psycopg | Asyncpg) -> None:
    async def commit(number: int) -> None:
        await driver.commit(1 + number * ROWS)

    async def page(number: int) -> None:
        assert await driver.page(number * 500) == 500

    for what, work, rounds in (
        (f"a commit of {ROWS} journal rows, records and known samples", commit, ROUNDS),
        ("a page of 500 journal rows", page, ROUNDS),
        ("a move of the cursor", driver.move, 500),
    ):
        wall, cpu = await timed(work, rounds)
        print(f"{driver.name:>18}  {what}: {wall:.2f} ms, {cpu:.2f} ms of CPU")


async def main() -> None:
    with run_postgres(fsync=True) as cluster:
        for name in ("one", "two"):
            cluster.execute(f"CREATE DATABASE {name}")
            cluster.execute(SCHEMA, name)
        async with await psycopg.AsyncConnection.connect(
            cluster.url_of("one"), autocommit=True, cursor_factory=psycopg.AsyncRawCursor
        ) as db:
            await measure(Psycopg(db))
        connection = await asyncpg.connect(cluster.url_of("two"))
        await measure(Asyncpg(connection))
        await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
