"""Holds leases: claims them, renews them in time, and says when one is lost. See `lease`."""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Collection, Mapping
from typing import NoReturn

from oneweb_bridge.config.schema import State
from oneweb_bridge.store.errors import StoreError, StoreUnavailable
from oneweb_bridge.store.lease import Holder, LeaseTable, open_leases
from oneweb_bridge.store.lease_looks import LeaseLooks
from oneweb_bridge.store.lease_rules import (
    Lease,
    Renewal,
    choose_to_give_up,
    end_after_renewal,
    is_left_over,
    pause_until_look,
    share_of,
)
from oneweb_bridge.store.server import Epochs, Holding, Server

_log = logging.getLogger("oneweb_bridge.lease")

MAX_LOOK_S = 1.0
"""Seconds between two looks whether an instance is free."""
TELL_INTERVAL_S = 60.0
"""Seconds between two lines about a server that is away."""
GIVE_UP_TIMEOUT_S = 2.0
"""Seconds that a stop waits for the server to hear that a lease is given up; it expires anyway."""


class HeldLease:
    """A lease that is held until `lost` is set, by the worker's own clock or because another worker has it."""

    def __init__(self, lease: Lease) -> None:
        self.fence = lease.fence
        self.lost = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self.last_until(lease.until)

    def last_until(self, until: float) -> None:
        """It lasts longer: until that monotonic time."""
        self.stop_timer()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, until - time.monotonic()), self.lost.set)

    def stop_timer(self) -> None:
        """It is not waited for its end any more."""
        if self._timer is not None:
            self._timer.cancel()


class LeaseKeeper:
    """The leases of this process in one database. Made by `open_keeper`; `run` renews them.

    Several workers with the same instances share them: each holds the same number, or one less.
    """

    def __init__(self, table: LeaseTable, state: State, worker: str, instances: int) -> None:
        """`instances` is how many there are to share."""
        self.worker = worker
        self.reaches_database = False
        """Whether the server answered when it was spoken to last."""
        self._table = table
        self._state = state
        self._instances = instances
        self._share = instances
        self._held: dict[str, HeldLease] = {}
        self._names: set[str] = set()
        self._claiming = asyncio.Lock()
        self._free_since: dict[str, float] = {}
        self._told_at: float | None = None
        self._lasting_error: str | None = None
        self._interval = min(MAX_LOOK_S, state.lease / 3)
        self._looks = LeaseLooks(table, self._interval / 2)
        self._waiting: set[str] = set()

    def epochs(self) -> Epochs:
        """The instances that this process waits for or holds, with the epochs of those that it holds."""
        held = {instance: lease.fence.epoch for instance, lease in self._held.items() if not lease.lost.is_set()}
        return {instance: held.get(instance) for instance in sorted(self._names)}

    async def run(self) -> NoReturn:
        """Renews what is held. Never returns: what is wrong for good is raised by each `hold`."""
        while True:
            await asyncio.sleep(self._interval)
            # What is claimed meanwhile is not among them.
            current = dict(self._held)
            try:
                renewal = await self._table.renew(list(current), self._missing())
            except (StoreUnavailable, TimeoutError) as error:
                self._tell(error)
                continue
            except StoreError as error:
                self._lose_all(error)
                continue
            self._lasting_error = None
            self._answered()
            self._note_renewal(current, renewal)
            self._share = share_of(self._instances, renewal.workers)
            for instance in choose_to_give_up(list(self._held), renewal.wanted, self._share):
                self._held[instance].lost.set()

    def _missing(self) -> list[str]:
        """The instances that this worker waits for, while it holds less than its share."""
        return sorted(self._waiting) if len(self._held) < self._share else []

    def _lose_all(self, error: StoreError) -> None:
        """Ends what runs under a lease of this database, whose instances learn why; those of other databases go on."""
        self.reaches_database, self._lasting_error = False, str(error)
        for held in self._held.values():
            held.lost.set()

    def _note_renewal(self, current: Mapping[str, HeldLease], renewal: Renewal) -> None:
        for instance, held in current.items():
            until = end_after_renewal(held.fence, renewal.leases.get(instance))
            if until is None:
                held.lost.set()
            elif not held.lost.is_set():
                held.last_until(until)

    @contextlib.asynccontextmanager
    async def hold(self, instance: str) -> AsyncIterator[tuple[HeldLease, Holding]]:
        """Waits until the instance is free, and holds it; gives it up at the end. Raises StoreError."""
        self._names.add(instance)
        self._waiting.add(instance)
        try:
            held = await self._wait_for(instance)
        finally:
            self._waiting.discard(instance)
        _log.info("%s holds the instance %s, epoch %d", self.worker, instance, held.fence.epoch)
        server = Server(self._state.url or "", instance, held.fence, self._state.lease)
        try:
            yield held, Holding(server, held.fence.epoch, self.worker, self.epochs)
        finally:
            held.stop_timer()
            del self._held[instance]
            with contextlib.suppress(StoreUnavailable, StoreError, TimeoutError):
                async with asyncio.timeout(GIVE_UP_TIMEOUT_S):
                    await self._table.give_up(held.fence)

    async def _wait_for(self, instance: str) -> HeldLease:
        while True:
            if self._lasting_error is not None:
                raise StoreError(self._lasting_error)
            pause = self._interval
            try:
                async with self._claiming:
                    left = await self._looks.time_left(instance, self._waiting)
                    if left > 0:
                        self._free_since.pop(instance, None)
                    elif (held := await self._try_to_hold(instance)) is not None:
                        return held
                self._answered()
                pause = pause_until_look(left, self._interval)
            except StoreUnavailable as error:
                self._tell(error)
            await asyncio.sleep(pause)

    async def _try_to_hold(self, instance: str) -> HeldLease | None:
        """Claims a free instance within this worker's share, or one that nobody took for as long as a lease."""
        if len(self._held) >= self._share and not self._is_left_over(instance):
            return None
        lease = await self._table.claim(instance)
        self._free_since.pop(instance, None)
        if lease is None:
            self._looks.forget(instance)
            return None
        held = self._held[instance] = HeldLease(lease)
        return held

    def _is_left_over(self, instance: str) -> bool:
        now = time.monotonic()
        return is_left_over(self._free_since.setdefault(instance, now), now, self._state.lease)

    def _answered(self) -> None:
        if self._told_at is not None:
            _log.info("PostgreSQL answers again")
        self._told_at, self.reaches_database = None, True

    def _tell(self, error: Exception) -> None:
        self.reaches_database = False
        if self._told_at is None or time.monotonic() - self._told_at >= TELL_INTERVAL_S:
            self._told_at = time.monotonic()
            _log.error("PostgreSQL cannot be used now (%s); waiting for it", str(error) or "no answer")

    async def leave(self) -> None:
        """Takes this worker from the list of those that are there."""
        with contextlib.suppress(StoreUnavailable, StoreError, TimeoutError):
            async with asyncio.timeout(GIVE_UP_TIMEOUT_S):
                await self._table.leave()


@contextlib.asynccontextmanager
async def open_keeper(state: State, instances: Collection[str] = ()) -> AsyncIterator[LeaseKeeper]:
    """The leases of this process in the database of `state.url`, under an id that is made anew at each start.

    `instances` are those to share with other workers.
    """
    worker = state.worker or f"{socket.gethostname()}-{os.getpid()}"
    me = Holder(worker, secrets.token_hex(16), state.lease, tuple(instances))
    async with open_leases(state.url or "", me) as table:
        keeper = LeaseKeeper(table, state, worker, max(1, len(instances)))
        try:
            yield keeper
        finally:
            await keeper.leave()
