"""A poll in which nothing changed, and the transaction of one in which everything did, against their floors."""

import contextlib
import sqlite3
import tempfile
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import msgspec
from multidict import CIMultiDict, CIMultiDictProxy

from bench.clock import Clock
from oneweb_bridge import simulator
from oneweb_bridge.api.answers import Answer
from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.listing import ListingPage
from oneweb_bridge.clock import Clock as WallClock
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.coverage import Finding, Judgement, Limits
from oneweb_bridge.model.records import Alert, Batch, DecodedRecord, Entry, RecordWrite
from oneweb_bridge.polling import poll_context
from oneweb_bridge.polling.answer_watch import AnswerWatch
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.store import store
from oneweb_bridge.store.places import Place

PAGE = 1000
SEEN = "2025-06-17T15:00:00.000Z"
NOW = 1_750_172_700.0
"""A quarter of an hour later: a time further ahead would not be believed, and each poll would read every record."""


def later(bodies: list[bytes], number: int) -> list[bytes]:
    """The same fleet in which every volatile field has moved; each number gives another."""
    seen = SEEN.replace(".000Z", f".{number:03}Z").encode()
    return [body.replace(SEEN.encode(), seen) for body in bodies]


def pages(terminals: int) -> list[bytes]:
    """The terminals listing in pages."""
    fake = simulator.Simulator(simulator.Options(terminals=terminals, seed=2, start="2025-06-17T14:15:00Z", speed=0.0))
    fake.freeze()
    things = fake.truth("terminals")
    for thing in things:
        thing["lastSeenDate"] = SEEN
    return [msgspec.json.encode(things[start : start + PAGE]) for start in range(0, len(things), PAGE)]


def split_and_hash(bodies: list[bytes], clock: Clock) -> None:
    """The floor: split each array, take the key, hash each record."""
    split = msgspec.json.Decoder(list[msgspec.Raw]).decode
    key = msgspec.json.Decoder(msgspec.defstruct("Key", [("id", str)])).decode
    clock.start()
    for body in bodies:
        for raw in split(body):
            key(raw)
            blake2b(raw, digest_size=16).digest()
    clock.stop()


class CannedApi(ApiClient):
    """An API whose pages come from memory instead of the network."""

    bodies: Sequence[bytes] = ()

    async def request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        empty_status: Collection[int] = (),
    ) -> Answer:
        """The page at an offset; behind the last record an empty one."""
        page, beside = divmod(int((params or {}).get("offset", 0)), PAGE)
        body = self.bodies[page] if beside == 0 and page < len(self.bodies) else b"[]"
        return Answer(200, body, CIMultiDictProxy(CIMultiDict()), None, self.url(path))


class CannedFleet(NamedTuple):
    """An intake, and the API that it polls."""

    intake: PollRunner
    api: CannedApi


class BlindWatch(AnswerWatch):
    """Counts nothing of an answer, and knows no shape."""

    is_looking = False

    def look_at_page(self, page: ListingPage) -> None:
        """Looks at nothing."""

    def note_record(self, reading: DecodedRecord, limits: Limits) -> None:
        """Notes nothing."""

    def count_listing(self, listed: AbstractSet[str], count: int) -> None:
        """Counts nothing."""

    def judge(self, findings: Iterable[Finding] = ()) -> Judgement | None:
        """Finds nothing."""
        del findings
        return None

    def shape_alerts(self, now: int) -> list[Alert]:
        """Nothing has changed."""
        del now
        return []


@contextlib.contextmanager
def blind() -> Iterator[None]:
    """Polls without coverage and without the shape of answers."""
    with mock.patch.object(poll_context, "AnswerWatch", BlindWatch):
        yield


async def snapshot(bodies: list[bytes], clock: Clock) -> None:
    """The first poll into an empty database."""
    async with empty(bodies) as fleet:
        clock.start()
        await fleet.intake.poll("user_terminals")
        clock.stop()


@contextlib.asynccontextmanager
async def filled(first: list[bytes], place: Place | None = None) -> AsyncGenerator[CannedFleet, None]:
    """An intake that has seen the fleet once."""
    async with empty(first, place) as fleet:
        await fleet.intake.poll("user_terminals")
        yield fleet


@contextlib.asynccontextmanager
async def empty(first: list[bytes], place: Place | None = None) -> AsyncGenerator[CannedFleet, None]:
    """An intake that has seen nothing yet, with its state in `place`, or in a file of SQLite that is new."""
    config: Config = parse("", {})
    with tempfile.TemporaryDirectory() as directory:
        async with store.open_store(place or Path(directory) / "bench.db") as opened:
            clock = WallClock(wall=lambda: NOW)
            api = CannedApi(config.api, None, Masks(), clock)  # type: ignore[arg-type]  # nothing is asked
            api.bodies = first
            yield CannedFleet(PollRunner(opened, api, config, clock), api)


async def unchanged(fleet: CannedFleet, bodies: list[bytes], clock: Clock) -> None:
    """One poll in which nothing that matters changed."""
    fleet.api.bodies = bodies
    clock.start()
    outcome = await fleet.intake.poll("user_terminals")
    clock.stop()
    assert outcome.events == 0


async def transaction(rows: int, clock: Clock, place: Place | None = None) -> None:
    """Records and journal rows through the store, in its slices, into `place` or a file of SQLite that is new."""
    doc, body = b"{" + b'"x":1,' * 100 + b'"y":1}', b"x" * 300
    with tempfile.TemporaryDirectory() as directory:
        async with store.open_store(place or Path(directory) / "bench.db") as opened:
            clock.start()
            for start in range(0, rows, PAGE):
                ids = [str(n) for n in range(start, start + PAGE)]
                await opened.commit(
                    Batch(
                        entries=[Entry("site", id, "changed", "", 1, body) for id in ids],
                        writes=[RecordWrite("site", id, doc, b"k" * 16, n) for n, id in enumerate(ids)],
                    )
                )
            clock.stop()


def executemany(rows: int, clock: Clock) -> None:
    """The same rows by bare executemany, in the same slices, into the same schema."""
    doc, body = "{" + '"x":1,' * 100 + '"y":1}', b"x" * 300
    schema = (Path(store.__file__).parent / "schema.sql").read_text()
    with tempfile.TemporaryDirectory() as directory:
        db = sqlite3.connect(Path(directory) / "bench.db", isolation_level=None)
        db.executescript(f"PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; {schema}")
        clock.start()
        for start in range(0, rows, PAGE):
            ids = range(start, start + PAGE)
            db.execute("BEGIN IMMEDIATE")
            db.executemany(
                """INSERT INTO journal (seq, at, entity, id, what, name, ts, body)
                   VALUES (?, 1, 'site', ?, 'changed', '', 1, ?)""",
                [(n + 1, str(n), body) for n in ids],
            )
            db.executemany(
                "INSERT INTO record (kind, id, doc, hash, seq) VALUES ('site', ?, ?, ?, ?)",
                [(str(n), doc, b"k" * 16, n + 1) for n in ids],
            )
            db.execute("COMMIT")
        clock.stop()
        db.close()
