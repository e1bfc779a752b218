"""A worker whose lease another has: what it does not do any more, and what it leaves."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from oneweb_bridge.config.read import parse
from oneweb_bridge.mqtt import publisher
from oneweb_bridge.mqtt.context import PublisherCallbacks
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.store import journal, store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.postgres import PostgresConnection
from tests.leases import ask, expire
from tests.places import held

pytestmark = pytest.mark.postgres
PATIENCE_S = 30.0


@contextlib.asynccontextmanager
async def counting_broker() -> AsyncIterator[tuple[int, list[object]]]:
    """The port of a server that ends each connection, and all that were made."""
    connections: list[object] = []

    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], connections


async def do_nothing(*_: object) -> Any:
    """A callback of the publisher."""


CALLBACKS = PublisherCallbacks(
    on_command=lambda _: None, info=do_nothing, alert=do_nothing, on_sent=lambda _: None, on_lost=do_nothing
)


async def test_worker_that_lost_its_lease_connects_no_more(url: str) -> None:
    """Its connection would end that of the worker that has it now, for they have the same client id."""
    async with (
        counting_broker() as (port, connections),
        held(url) as server,
        store.open_store(server) as opened,
        journal.open_journal(server, "mqtt") as rows,
    ):
        settings = msgspec.structs.replace(parse("", {}).mqtt, host="127.0.0.1", port=port)
        tree = TopicTree("oneweb", "main", opened.journal_id, opened.earlier)
        tree.epoch = 1
        made = publisher.Publisher(settings, tree, rows, opened.growth, CALLBACKS)
        expire(url)
        async with held(url):
            with pytest.raises(StoreUnavailable):
                await made._connect(asyncio.Event())
    assert connections == []


async def test_retained_poll_that_was_not_run_is_obeyed_when_it_comes_again(url: str) -> None:
    """Polls that the worker before had taken are lost; a command on a topic that has none of them is remembered."""
    async with held(url) as server, store.open_store(server) as db:
        await db.commands.add_poll_requests("retained", ["a"], None, ("retained", "mark"))
        await db.commands.add_poll_requests("other", ["a"], None, None)
        await db.commands.store_command([], ("setting", "mark"))
    async with held(url) as server, store.open_store(server) as db:
        assert await db.commands.poll_requests() == []
        assert await db.commands.last_command_identity("retained") is None
        assert await db.commands.last_command_identity("setting") == "mark"


async def test_copy_that_is_cancelled_when_its_session_ends_is_cancelled(url: str) -> None:
    """It is no error of the database, after which who was told to end would go on."""
    async with held(url) as server, store.open_store(server) as db:
        connection = db._connections._writer
        assert isinstance(connection, PostgresConnection)
        has_begun = asyncio.Event()

        async def copy_for_ever() -> None:
            async with (
                connection.transaction() as transaction,
                transaction._db.cursor() as cursor,
                cursor.copy(b"COPY stale (imei) FROM STDIN") as copy,
            ):
                await copy.write_row(("T",))
                has_begun.set()
                await asyncio.Event().wait()

        copying = asyncio.create_task(copy_for_ever())
        async with asyncio.timeout(PATIENCE_S):
            await has_begun.wait()
        ended = ask(url, "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE query LIKE 'COPY stale%'")
        assert ended == [(True,)]
        copying.cancel()
        await asyncio.wait({copying}, timeout=PATIENCE_S)
        assert copying.cancelled()
