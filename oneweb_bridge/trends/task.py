"""The task that folds: at the start, every hour, and when housekeeping is about to trim what is in no chunk yet.

A pass runs in a thread of its own, one at a time, so that no poll waits for it. Whatever is wrong with the trends'
file is told by an alert and hurts nobody else.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import msgspec

from oneweb_bridge.config.schema import Config
from oneweb_bridge.encoding import count_text
from oneweb_bridge.model.records import Alert
from oneweb_bridge.store.errors import StoreUnavailable, named_errors
from oneweb_bridge.store.journal import Journal, open_journal
from oneweb_bridge.store.places import Place
from oneweb_bridge.store.threads import open_thread
from oneweb_bridge.trends.fold import FoldRules, Moment, Outcome, fold_trends

_log = logging.getLogger("oneweb_bridge.trends")

OUTPUT = "trends"
"""The cursor that says how far the journal is folded."""
FOLD_INTERVAL_S = 3600.0
RETRY_S = 60.0
"""Seconds until it is tried again where the database could not be read."""
EVERYTHING = (1 << 63) - 1
"""Later than any row: where nothing is folded, nothing waits for it."""


class Clocks(msgspec.Struct, frozen=True):
    """The time of the API and steady time, in ms."""

    api: Callable[[], int]
    steady: Callable[[], int]


def trends_place_of(config: Config, place: Place) -> Place:
    """Where the trends are: on the server that has the state, or in `trends.path`, or beside the database's file."""
    if not isinstance(place, Path):
        return place
    return Path(config.trends.path) if config.trends.path else beside(place)


def beside(database: Path) -> Path:
    """The file of the trends that belongs to a database, or to a copy of one."""
    return database.parent / f"{database.stem}.trends.db"


def rules_of(config: Config) -> FoldRules:
    """What is kept, and which indicators are counters."""
    counters = {
        call.report: frozenset(field.name for field in call.fields if field.kind == "cumulative")
        for call in config.polling.values()
        if call.report
    }
    kept = config.trends
    return FoldRules(keep=kept.keep, keep_daily=kept.keep_daily, max_size=kept.max_size, counters=counters)


@contextlib.asynccontextmanager
async def open_folder(
    config: Callable[[], Config], place: Place, alert: Callable[[Alert], Awaitable[None]], clocks: Clocks
) -> AsyncIterator["Folder"]:
    """The folder of the state in `place`; the trends are where the start has them. Raises StoreError for the state."""
    stop = Event()
    async with open_journal(place, OUTPUT) as journal, open_thread("trends") as thread:
        try:
            places = place, trends_place_of(config(), place)
            yield Folder(config, alert, clocks, journal, _Worker(thread, stop, places))
        finally:
            # What is not folded is still pending; the thread ends with its slice.
            stop.set()


class _Worker(msgspec.Struct, frozen=True):
    """The thread that folds, what asks it to end after its slice, and where the state and the trends are."""

    thread: ThreadPoolExecutor
    stop: Event
    places: tuple[Place, Place]


class Folder:
    """Made by `open_folder`."""

    def __init__(
        self,
        config: Callable[[], Config],
        alert: Callable[[Alert], Awaitable[None]],
        clocks: Clocks,
        journal: Journal,
        worker: "_Worker",
    ) -> None:
        self._config = config
        self._alert = alert
        self._clocks = clocks
        self._journal = journal
        self._worker = worker
        self._lock = asyncio.Lock()
        self._folded_through = 0
        self._has_told_error = False

    async def run(self) -> None:
        """Folds now and every hour. Never returns."""
        while True:
            pause = FOLD_INTERVAL_S
            if self._config().trends.enabled:
                try:
                    async with self._lock:
                        await self._fold(0)
                except StoreUnavailable as error:
                    _log.warning("samples could not be folded into the trends: %s", error)
                    pause = RETRY_S
            await asyncio.sleep(pause)

    async def fold_through(self, seq: int) -> int:
        """Folds everything up to a row, whether its day is over or not. Returns the row up to which all is folded.

        That is less than `seq` where the trends cannot be written. Raises StoreUnavailable for the database.
        """
        if not self._config().trends.enabled:
            return EVERYTHING
        async with self._lock:
            if self._folded_through < seq:
                await self._fold(seq)
        return self._folded_through

    async def _fold(self, through: int) -> None:
        """One pass, and what is to be told of it."""
        with named_errors():
            is_known = await self._journal.cursor() > 0
        moment = Moment(api=self._clocks.api(), steady=self._clocks.steady(), through=through)
        rules = rules_of(self._config())
        outcome = await asyncio.get_running_loop().run_in_executor(
            self._worker.thread,
            lambda: fold_trends(*self._worker.places, rules, moment, is_known=is_known, stop=self._worker.stop),
        )
        self._folded_through = outcome.folded_through
        await self._note(outcome)
        await self._tell(outcome)

    async def _note(self, outcome: Outcome) -> None:
        try:
            with named_errors():
                await self._journal.advance(outcome.folded_through)
        except StoreUnavailable as error:
            # It is the database's own trouble, which others tell; the position is in the trends too.
            _log.warning("the cursor of the trends could not be written: %s", error)

    async def _tell(self, outcome: Outcome) -> None:
        for message in losses(outcome):
            _log.error("%s", message)
            await self._alert(Alert(kind="trends_lost", message=message))
        if outcome.error and not self._has_told_error:
            message = f"the trends cannot be written, and samples wait in the journal: {outcome.error}"
            _log.error("%s", message)
            await self._alert(Alert(kind="trends_behind", message=message))
        self._has_told_error = bool(outcome.error)


def losses(outcome: Outcome) -> list[str]:
    """What an operator should know of what is lost."""
    sentences = []
    if outcome.lost:
        sentences.append(f"{outcome.lost}: the trends begin again with the samples that the journal still has")
    if outcome.unreadable:
        sentences.append(
            "made again from the journal, because it could not be read: "
            f"{count_text(outcome.unreadable, 'chunk')} of the trends"
        )
    return sentences
