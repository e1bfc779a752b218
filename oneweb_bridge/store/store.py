"""The bridge's state in SQLite: records, samples, settings, staged listings, journal. The only writer of records.

Each subject is a part of its own; `commit` stores what a poll has found of all of them in one transaction.
After a failed commit nothing in memory is trusted any more; it is read again from the disk.
"""

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

from oneweb_bridge.clock import SYSTEM, Clock, SteadyTime
from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.model.records import Batch
from oneweb_bridge.store import database, opening, places, staging
from oneweb_bridge.store.bad_answers import BadAnswers
from oneweb_bridge.store.batch_writer import BatchWriter
from oneweb_bridge.store.call_progress import CallProgress, ProgressTable, write_progress
from oneweb_bridge.store.commands import CommandTables, forget_polls
from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import Connection
from oneweb_bridge.store.findings import FindingsTable
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.store.meta import JournalIds
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.records import Records, Relations
from oneweb_bridge.store.samples import Samples
from oneweb_bridge.store.shapes import AnswerShapes
from oneweb_bridge.store.staging import Staging
from oneweb_bridge.store.unmatched import UnmatchedTable
from oneweb_bridge.store.usage_days import UsageDaysTable
from oneweb_bridge.store.view_table import make_views


@contextlib.asynccontextmanager
async def open_store(place: Place, clock: Clock = SYSTEM) -> AsyncIterator["Store"]:
    """The store in `place`; a file is created where it is missing, and held by a lock. Raises StoreError."""
    async with contextlib.AsyncExitStack() as stack:
        if isinstance(place, Path):
            writer: Connection = await stack.enter_async_context(database.open_own_file(place))
        else:
            writer = await stack.enter_async_context(places.open_connection(place))
        with places.explained(place):
            if not isinstance(place, Path):
                await forget_polls(writer)
            steady, ids = await opening.prepare(writer, clock)
        reader = await stack.enter_async_context(places.open_connection(place, read_only=True))
        staged = await stack.enter_async_context(staging.open_staging())
        yield Store(Connections(writer, reader, clock=clock, steady=steady), staged, place, ids)


class Store:
    """Made by `open_store`. Every method of a part is one transaction, or reads what was committed."""

    def __init__(self, connections: Connections, staged: Staging, place: Place, ids: JournalIds) -> None:
        self.journal_id, self.earlier = ids
        self.growth = JournalGrowth()
        self.staging = staged
        self.records = Records(connections)
        self.relations = Relations(connections)
        self.samples = Samples(connections)
        self.usage_days = UsageDaysTable(connections)
        self.progress = ProgressTable(connections)
        self.shapes = AnswerShapes(connections)
        self.findings = FindingsTable(connections)
        self.unmatched = UnmatchedTable(connections)
        self.commands = CommandTables(connections)
        self.bad_answers = BadAnswers(place)
        self._connections = connections

    async def make_views(self, calls: Mapping[str, Call]) -> None:
        """Makes the views of `docs/sql.md`, where they are not what these calls give. Raises StoreUnavailable."""
        await make_views(self._connections, calls)

    @property
    def steady(self) -> SteadyTime:
        """The time by which ages are measured; see `clock`."""
        return self._connections.steady

    @property
    def write_error(self) -> str | None:
        """Why the last transaction could not be written; None when it was."""
        return self._connections.write_error

    async def commit(self, batch: Batch, progress: CallProgress | None = None, ended: Sequence[int] = ()) -> int:
        """Stores a batch and appends its entries to the journal. Returns the journal's last number.

        With it, in the same transaction: the progress of a call, and the numbers of poll requests that have ended.
        """
        async with self._connections.transaction() as transaction:
            now, wall_time = self._connections.steady.now(), self._connections.clock.now()
            writer = BatchWriter(transaction, batch, self._connections.dialect, now=now, wall_time=wall_time)
            head = await writer.write()
            if progress is not None:
                await write_progress(transaction, progress)
            await transaction.execute_many("DELETE FROM poll_request WHERE number = ?", [(n,) for n in ended])
        if batch.entries:
            self.growth.notify()
        return head
