"""What the tests of single polls need: the simulated API, the store and the poll runner, and a clock that stands still.

There is no poller here: a test says when which call is polled, and what it brought is read from the journal.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import yaml

from oneweb_bridge.api.client import ApiClient, open_api
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.model.records import Batch
from oneweb_bridge.polling.poll_context import PollOutcome
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.simulator import Options, Simulator, serve
from oneweb_bridge.store import store
from oneweb_bridge.store.findings import stopped_fact
from tests import harness

START = "2025-06-17T14:15:00Z"
RECORDS = ("user_terminals", "products", "organizations", "sites")


class JournalRow(msgspec.Struct, frozen=True):
    """One row of the journal, its body read."""

    entity: str
    id: str
    what: str
    name: str
    ts: int
    body: Any


def configured(url: str, **changes: Any) -> Config:
    """A configuration for the simulator at `url`."""
    given = {
        "api": {
            "base_url": url,
            "client_id": "demo",
            "client_secret": "demo-secret",
            "rate_limit": {"min_interval": "0s"},
        }
    }
    return parse(yaml.safe_dump(harness.merged(given, changes)), {})


class HostClock(Clock):
    """The clock of the bridge's machine: simulated time, but for the `skew` of what its wall clock says, in seconds."""

    def __init__(self, simulator: Simulator, boot: str) -> None:
        self.skew = 0.0
        now = simulator.world.clock.now
        super().__init__(lambda: now() + self.skew, now, boot)


class Bench:
    """One bridge without its poller. `skew` is how wrong the host's clock is, in seconds."""

    def __init__(
        self, simulator: Simulator, opened: store.Store, connection: ApiClient, clock: HostClock, **changes: Any
    ) -> None:
        self.sim = simulator
        self.store = opened
        self.api = connection
        self.clock = clock
        self._read = 0
        self._changes = changes
        self.runner = PollRunner(opened, connection, configured(simulator.url, **changes), clock)

    @property
    def skew(self) -> float:
        """How wrong the host's wall clock is, in seconds."""
        return self.clock.skew

    @skew.setter
    def skew(self, seconds: float) -> None:
        self.clock.skew = seconds

    def configure(self, **changes: Any) -> None:
        """Puts another configuration in force, as SIGHUP does."""
        self._changes = harness.merged(self._changes, changes)
        self.runner.reconfigure(configured(self.sim.url, **self._changes))

    async def poll(self, call: str, *more: str) -> PollOutcome:
        """Polls calls one after the other, and remembers each as the poller does. Returns the last outcome."""
        outcome = await self.runner.poll(call)
        await self.store.progress.save(outcome.progress)
        await self.store.commit(Batch(facts=[stopped_fact(call, outcome.stopped)]))
        await self.runner.keep_shape(call, outcome)
        return await self.poll(*more) if more else outcome

    async def later(self, seconds: float) -> None:
        """Lets simulated time pass, and hears of it as the poller does by its hello."""
        self.sim.advance(seconds)
        await self.api.hello()

    async def rows(self, sql: str, *values: Any) -> list[Any]:
        """What the database holds."""
        return await self.store._connections.rows(sql, values)

    async def news(self) -> list[JournalRow]:
        """The journal's rows since the last look."""
        rows = await self.rows(
            "SELECT seq, entity, id, what, name, ts, body FROM journal WHERE seq > ? ORDER BY seq", self._read
        )
        self._read = rows[-1][0] if rows else self._read
        return [
            JournalRow(entity, id, what, name, ts, json.loads(body)) for _, entity, id, what, name, ts, body in rows
        ]

    async def events(self) -> list[tuple[str, str]]:
        """Which record events came since the last look: what and whose."""
        return [(row.what, row.id) for row in await self.news() if row.what in ("added", "changed", "removed")]

    async def holdings(self) -> dict[str, list[Any]]:
        """Everything that is known of the API's objects, to be compared before and after."""
        return {
            "record": await self.rows("SELECT kind, id, doc FROM record WHERE kind != 'call' ORDER BY 1, 2"),
            "removed": await self.rows("SELECT kind, id FROM removed ORDER BY 1, 2"),
            "newest": await self.rows("SELECT report, id, ts, hash, doc FROM newest ORDER BY 1, 2"),
            "seen": await self.rows("SELECT stream, ts, hash FROM seen ORDER BY 1, 2"),
            "links": await self.rows("SELECT * FROM product_link ORDER BY 1, 2, 3"),
            "missing": await self.rows("SELECT kind, id, missing FROM record WHERE missing > 0 ORDER BY 1, 2"),
        }

    async def count_staged(self) -> int:
        """How many rows wait for the end of a listing."""
        return int((await self.store.staging._rows("SELECT count(*) FROM staged", ()))[0][0])

    async def record(self, kind: str, id: str) -> dict[str, Any]:
        """The announced record."""
        rows = await self.rows("SELECT doc FROM record WHERE kind = ? AND id = ?", kind, id)
        fields: dict[str, Any] = json.loads(rows[0][0])
        return fields

    def ids(self, kind: str) -> list[str]:
        """The ids that the API lists now."""
        return [thing["id"] for thing in self.sim.truth(kind)]


@contextlib.asynccontextmanager
async def fleet(**options: Any) -> AsyncIterator[Simulator]:
    """A fleet of eight that stands still, unless `options` of the simulator say otherwise."""
    given: dict[str, Any] = {"terminals": 8, "seed": 2, "start": START, "speed": 0.0, "liveliness": 0.0}
    async with serve(Options(**(given | options))) as simulator:
        yield simulator


@contextlib.asynccontextmanager
async def bench(directory: Path, options: dict[str, Any] | None = None, **changes: Any) -> AsyncIterator[Bench]:
    """A bench at a fleet of its own; `changes` are those of the configuration."""
    async with fleet(**(options or {})) as simulator, opened(directory, simulator, **changes) as opened_bench:
        yield opened_bench


@contextlib.asynccontextmanager
async def opened(directory: Path, simulator: Simulator, boot: str = "a boot", **changes: Any) -> AsyncIterator[Bench]:
    """A bench at a running simulator, over the database in `directory`: what a restart of the bridge opens.

    Another `boot` is a restart of the machine.
    """
    settings = configured(simulator.url, **changes).api
    clock = HostClock(simulator, boot)
    async with (
        store.open_store(directory / "bridge.db", clock) as opened_store,
        open_api(settings, clock=clock) as connection,
    ):
        # What a crash of the machine leaves is examined elsewhere; here it would cost most of the time.
        await opened_store._connections._writer.execute("PRAGMA synchronous = OFF")
        await connection.hello()
        yield Bench(simulator, opened_store, connection, clock, **changes)
