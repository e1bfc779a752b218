"""A database of PostgreSQL that holds the state of an instance, and what a worker must hold to write there."""

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
        """By which the sessions of a holder are known on the server, so that they can be ended."""
        return "oneweb-bridge" if self.fence is None else self.fence.holder


Epochs = Mapping[str, int | None]
"""The instances of a worker, each with the epoch under which it holds it; None where it does not."""


class Holding(msgspec.Struct, frozen=True):
    """An instance that a worker holds: its place with the lease, the worker's name, and what else it holds now."""

    server: Server
    epoch: int
    worker: str
    epochs: Callable[[], Epochs] = dict
