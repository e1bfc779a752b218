"""A database of PostgreSQL that holds the state of an instance, and what a worker must hold to write there."""

import zlib
from collections.abc import Callable, Mapping

import msgspec


class Fence(msgspec.Struct, frozen=True):
    """The lease of an instance as a worker has it: every transaction that writes checks it. See `lease`."""

    instance: str
    holder: str
    epoch: int


class Server(msgspec.Struct, frozen=True):
    """Where the state of an instance is. `url` may hold a password; `lease` in seconds. Without a fence it is read."""

    url: str
    instance: str
    fence: Fence | None = None
    lease: float = 15.0

    @property
    def application_name(self) -> str:
        """By which the sessions of a lease are known on the server, so that they can be ended."""
        if self.fence is None:
            return "oneweb-bridge"
        return f"{self.fence.holder} {session_tag(self.instance)} {self.fence.epoch}"


Epochs = Mapping[str, int | None]
"""The instances of a worker, each with the epoch under which it holds it; None where it does not."""


def session_tag(instance: str) -> str:
    """Stands for an instance in the names of sessions, of which PostgreSQL keeps 63 bytes."""
    return f"{zlib.crc32(instance.encode()):08x}"


class Holding(msgspec.Struct, frozen=True):
    """An instance that a worker holds: its place with the lease, the worker's name, and what else it holds now."""

    server: Server
    epoch: int
    worker: str
    epochs: Callable[[], Epochs] = dict
