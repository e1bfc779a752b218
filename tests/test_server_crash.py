"""What PostgreSQL must remember when it crashes, because somebody outside was told of it."""

import contextlib
import signal

import pytest

from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.store import journal, store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.server import Server
from tests.places import held, make_tables
from tests.postgres import run_postgres

pytestmark = pytest.mark.postgres
ROWS = Batch(entries=[Entry("terminal", "T", "changed", "", 0, b"{}")] * 3)


async def test_server_that_crashed_has_the_cursor() -> None:
    """A cursor that was saved may have been published as `bridge/head`, which is never ahead of the server."""
    with run_postgres(fsync=True) as own:
        # Nothing is flushed that nobody waits for.
        own.execute("ALTER SYSTEM SET wal_writer_delay = '10s'")
        own.execute("SELECT pg_reload_conf()")
        await make_tables(own.url)
        # The lease is not given up: its connection is lost.
        with contextlib.suppress(StoreUnavailable):
            async with (
                held(own.url) as server,
                store.open_store(server) as opened,
                journal.open_journal(server, "mqtt") as rows,
            ):
                await opened.commit(ROWS)
                await rows.advance(3)
                own.stop(signal.SIGQUIT)
        own.start()
        async with journal.open_journal(Server(own.url, "main"), "mqtt", read_only=True) as rows:
            assert (await rows.cursor(), await rows.head()) == (3, 3)
