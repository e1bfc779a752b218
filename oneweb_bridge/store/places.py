"""Where the state of an instance is, and how it is opened: a file of SQLite, or a server of PostgreSQL.

What PostgreSQL needs is imported only where it is used: its driver is an extra.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from oneweb_bridge.config.schema import DEFAULT_PATH, Config
from oneweb_bridge.store import database
from oneweb_bridge.store.engine import Connection, Reader, Writer
from oneweb_bridge.store.server import Server

Place = Path | Server


def place_of(config: Config) -> Place:
    """Where the state of a configuration is. A server is only read so: who writes there needs a lease."""
    if config.state.url is not None:
        return Server(config.state.url, config.instance, lease=config.state.lease)
    return Path(config.state.path or DEFAULT_PATH)


@contextlib.asynccontextmanager
async def open_connection(
    place: Place, *, read_only: bool = False, flushes: bool = True, lock: asyncio.Lock | None = None
) -> AsyncIterator[Connection]:
    """A connection for coroutines; see `database.open_connection`. Raises StoreError."""
    if isinstance(place, Path):
        async with database.open_connection(place, read_only=read_only, flushes=flushes, lock=lock) as connection:
            yield connection
        return
    from oneweb_bridge.store import postgres  # noqa: PLC0415 -- see above

    async with postgres.open_connection(place, read_only=read_only, flushes=flushes, lock=lock) as connection:
        yield connection


@contextlib.contextmanager
def open_reader(place: Place, *, busy_timeout_ms: int = 10_000) -> Iterator[Reader]:
    """A read-only connection for one thread at a time. Raises StoreError."""
    if isinstance(place, Path):
        with database.open_reader(place, busy_timeout_ms=busy_timeout_ms) as reader:
            yield reader
        return
    from oneweb_bridge.store import postgres_thread  # noqa: PLC0415 -- see above

    with postgres_thread.open_connection(place, read_only=True) as reader:
        yield reader


@contextlib.contextmanager
def open_writer(server: Server, *, read_only: bool) -> Iterator[Writer]:
    """A connection to a server for one thread at a time; with `read_only` it writes nothing. Raises StoreError."""
    from oneweb_bridge.store import postgres_thread  # noqa: PLC0415 -- see above

    with postgres_thread.open_connection(server, read_only=read_only) as writer:
        yield writer


@contextlib.contextmanager
def explained(place: Place) -> Iterator[None]:
    """Turns what goes wrong while a file is being opened into a StoreError; a server that is away is waited for."""
    with database.explained(place) if isinstance(place, Path) else contextlib.nullcontext():
        yield
