"""A worker that does nothing but write, as fast as it may, with the real lease, store and journal.

    python -m tests.fleet.writer '{"url": "postgresql://…", "name": "a", "directory": "…", "fenced": true}'

It is worse than a bridge: it goes on writing after its own clock has told it to stop, and tries again at once after
each error, until the fence refuses it. What was committed it notes in a file, and stops where `stopping` says.
"""

import asyncio
import os
import random
import sys
from pathlib import Path

import msgspec

from oneweb_bridge.config.schema import Secret, State
from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.store import places
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.journal import Journal, open_journal
from oneweb_bridge.store.lease_keeper import LeaseKeeper, open_keeper
from oneweb_bridge.store.postgres import LeaseLost
from oneweb_bridge.store.server import Server
from oneweb_bridge.store.store import Store, open_store
from tests.cancelling import end_tasks
from tests.fleet import stopping

STUBBORN_S = 1.0
"""Seconds for which it goes on although its lease is lost, where nothing refuses it."""
BATCH_SIZES = (1, 5, 40)
"""Rows of a transaction: INSERT and COPY."""
PAUSE_S = 0.005


class Orders(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a writer is to do."""

    url: str
    name: str
    directory: str
    lease: float = 2.0
    fenced: bool = True

    @property
    def flag(self) -> Path:
        """The file that names the point at which it stops."""
        return Path(self.directory) / f"{self.name}.stop"

    @property
    def committed(self) -> Path:
        """The file in which it notes what was committed: a name and a journal number in each line."""
        return Path(self.directory) / f"{self.name}.committed"


class Writer:
    """Writes while an instance is held."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._count = 0
        self._file = os.open(orders.committed, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._chance = random.Random(orders.name)

    async def run(self, keeper: LeaseKeeper) -> None:
        """Never returns."""
        while True:
            async with keeper.hold("main") as (held, holding):
                writing = asyncio.create_task(self._write_until_refused(holding.server))
                losing = asyncio.create_task(held.lost.wait())
                await asyncio.wait((writing, losing), return_when=asyncio.FIRST_COMPLETED)
                await asyncio.wait((writing,), timeout=STUBBORN_S)
                for result in await end_tasks(writing, losing):
                    if isinstance(result, Exception) and not isinstance(result, StoreUnavailable):
                        raise result

    async def _write_until_refused(self, server: Server) -> None:
        async with open_store(server) as store, open_journal(server, "mqtt") as journal:
            while True:
                try:
                    await self._write(store, journal, server)
                except LeaseLost:
                    return
                except StoreUnavailable:
                    continue
                await asyncio.sleep(PAUSE_S)

    async def _write(self, store: Store, journal: Journal, server: Server) -> None:
        self._count += 1
        name, size = f"{self._orders.name}:{self._count}", self._chance.choice(BATCH_SIZES)
        head = await store.commit(Batch(entries=[Entry("terminal", "T", "changed", name, 0, b"{}")] * size))
        os.write(self._file, f"{name} {head}\n".encode())
        await journal.advance(head)
        if size == max(BATCH_SIZES):
            await asyncio.to_thread(_write_in_thread, server, head)


def _write_in_thread(server: Server, head: int) -> None:
    with places.open_writer(server, read_only=False) as writer, writer.transaction():
        writer.execute("INSERT INTO pending (day, id, seq) VALUES (0, 'T', ?) ON CONFLICT DO NOTHING", (head,))
        writer.execute("UPDATE pending SET seq = ? WHERE day = 0 AND id = 'T'", (head,))


async def main(orders: Orders) -> None:
    """Runs until it is killed."""
    stopping.install(orders.flag)
    if not orders.fenced:
        stopping.remove_fence()
    state = State(path=None, url=Secret(orders.url), lease=orders.lease, worker=orders.name)
    async with open_keeper(state) as keeper, asyncio.TaskGroup() as group:
        group.create_task(keeper.run())
        group.create_task(Writer(orders).run(keeper))


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Orders)))
