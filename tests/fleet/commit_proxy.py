"""A TCP proxy between a worker and PostgreSQL that cuts a connection in the middle of a COMMIT.

It reads what the worker sends as messages of PostgreSQL's protocol (version 3, without TLS), so that it knows a COMMIT,
also one that was prepared. A cut comes before the server has it, after the server has answered, or in between: then the
server gets it only when the worker has lost the connection already.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

from tests.cancelling import end_tasks

MODES = ("before", "after", "late")
LATE_S = 0.3
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
"""Codes of messages that come before the one that begins a session. Source: PostgreSQL, protocol message formats."""
PARAMETERS = "sslmode=disable&gssencmode=disable"


class CommitProxy:
    """`choose` says for each COMMIT how its connection is cut; None lets it pass. It may be changed at any time."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self.cuts = dict.fromkeys(MODES, 0)
        self.passed = 0
        self.choose: Callable[[], str | None] = lambda: None
        self._target = target

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection through the proxy."""
        try:
            there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        way = _Session(self, reader, writer, there_reader, there_writer)
        tasks = [asyncio.create_task(way.up(), name="proxy up"), asyncio.create_task(way.down(), name="proxy down")]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end_tasks(*tasks)
            writer.close()
            there_writer.close()


class _Session:
    """The two directions of one connection."""

    def __init__(
        self,
        proxy: CommitProxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        there_reader: asyncio.StreamReader,
        there_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._reader, self._writer = reader, writer
        self._there_reader, self._there_writer = there_reader, there_writer
        self._commits: set[bytes] = set()
        self._is_muted = False
        self._answered = asyncio.Event()

    async def up(self) -> None:
        """From the worker to the server."""
        with contextlib.suppress(OSError, EOFError):
            await self._pass_start()
            while True:
                head = await self._reader.readexactly(5)
                body = await self._reader.readexactly(int.from_bytes(head[1:], "big") - 4)
                if self._is_commit(head[:1], body):
                    mode = self._proxy.choose()
                    if mode is not None:
                        self._proxy.cuts[mode] += 1
                        await self._cut(mode, head + body)
                        return
                    self._proxy.passed += 1
                await self._send(head + body)

    async def down(self) -> None:
        """From the server to the worker."""
        with contextlib.suppress(OSError):
            while data := await self._there_reader.read(65536):
                if self._is_muted:
                    self._answered.set()
                    continue
                self._writer.write(data)
                await self._writer.drain()

    async def _pass_start(self) -> None:
        """The messages before those with a type."""
        while True:
            length = await self._reader.readexactly(4)
            body = await self._reader.readexactly(int.from_bytes(length, "big") - 4)
            await self._send(length + body)
            if int.from_bytes(body[:4], "big") not in (SSL_REQUEST, GSS_REQUEST):
                return

    async def _send(self, data: bytes) -> None:
        self._there_writer.write(data)
        await self._there_writer.drain()

    def _is_commit(self, kind: bytes, body: bytes) -> bool:
        if kind == b"P":
            name, statement, _ = body.split(b"\0", 2)
            if statement == b"COMMIT":
                self._commits.add(name)
            return False
        if kind == b"B":
            return body.split(b"\0", 2)[1] in self._commits
        return kind == b"Q" and body == b"COMMIT\0"

    async def _cut(self, mode: str, message: bytes) -> None:
        """Ends the worker's side. A statement that was prepared is executed by the messages that follow."""
        if not message.startswith(b"Q"):
            message += await self._rest_of_batch()
        self._is_muted = True
        if mode == "after":
            await self._send(message)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._answered.wait(), 5.0)
        self._writer.transport.abort()
        if mode == "late":
            await asyncio.sleep(LATE_S)
            await self._send(message)

    async def _rest_of_batch(self) -> bytes:
        """The messages up to Sync, without which a prepared statement is not executed."""
        rest = b""
        while True:
            head = await self._reader.readexactly(5)
            rest += head + await self._reader.readexactly(int.from_bytes(head[1:], "big") - 4)
            if head.startswith(b"S"):
                return rest


@contextlib.asynccontextmanager
async def between(port: int) -> AsyncIterator[CommitProxy]:
    """A proxy in front of the server at `port`."""
    proxy = CommitProxy(port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        yield proxy
