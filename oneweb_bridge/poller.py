"""The polling manager: one task per call, its schedule, its state, and the wishes of operators.

The state of a call is a record like any other: compared, committed and published through the journal.
"""

import asyncio
import contextlib
import logging
import random
import sqlite3
import time
from collections.abc import Awaitable
from typing import Literal

import msgspec

from oneweb_bridge import schedule
from oneweb_bridge.api import Api, ApiError, BadAnswer, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.config import Config
from oneweb_bridge.diff import encode
from oneweb_bridge.intake import Intake, Outcome
from oneweb_bridge.model import Alert, Batch, Entry, Put, Status
from oneweb_bridge.payloads import Alarm, ApiState, CallState
from oneweb_bridge.store import CallMemory, Setting, Store
from oneweb_bridge.turns import Turns
from oneweb_bridge.values import rfc3339

_log = logging.getLogger("oneweb_bridge.poller")

FRESH_CHECK = 2.0
ONCE = frozenset(("unpaged", "time_not_believed"))
"""What is told once per call and run: records are not looked at in each poll, so its absence says nothing."""
MOST_KEPT = 2000
"""Bytes of a bad answer that are kept for the operator."""
HELLO_RETRY = (2.0, 300.0)
"""Shortest and longest pause between two tries to sign in while the API cannot be reached."""


class Done(msgspec.Struct, frozen=True):
    """The end of a wish: the call's state, and what went wrong."""

    state: CallState
    error: str | None = None


class Slot:
    """Everything that belongs to one call while the bridge runs."""

    def __init__(self, call: str, memory: CallMemory) -> None:
        self.call = call
        self.memory = memory
        self.enabled = True
        self.interval = 0.0
        self.effective = 0.0
        self.lateness = 0.0
        self.status: Status = "waiting"
        self.error: str | None = None
        self.due = 0.0
        self.requests = 1.0
        self.records = self.events = self.samples = 0
        self.duration_ms: int | None = None
        self.poked = asyncio.Event()
        self.wishes: list[asyncio.Future[Done]] = []
        self.running = False
        self.begun = 0.0
        self.said: bytes = b""
        self.alerted: set[tuple[str, str]] = set()


class Poller:
    """`run` polls until it is cancelled. Everything else may be called meanwhile, from the same loop."""

    def __init__(self, intake: Intake, store: Store, api: Api, config: Config, clock: Clock = SYSTEM) -> None:
        self.slots: dict[str, Slot] = {}
        self.progress = time.monotonic()
        self.api_state = ApiState("unreachable", rfc3339(clock.now()), error="not asked yet")
        self._intake = intake
        self._store = store
        self._api = api
        self._config = config
        self._clock = clock
        self._turns = Turns(config.api.rate_limit.max_in_flight)
        self._signed_in = asyncio.Event()
        self._hello_wanted = asyncio.Event()
        self._related = asyncio.Event()
        self._stretching = False
        self._clocks_differ = False
        self._stretch_alert: Alert | None = None

    async def load(self) -> None:
        """Reads what is remembered of each call, and the settings that commands have stored."""
        for call in self._config.polling:
            self.slots[call] = Slot(call, await self._store.call_memory(call))
        await self._take_settings()
        for slot in self.slots.values():
            age = self._store.steady.age(slot.memory.polled)
            slot.due = time.monotonic() + schedule.first_wait(age, slot.interval)
        await self.use(self._config)

    async def use(self, config: Config) -> None:
        """Takes a configuration; stored settings stay in force over it."""
        self._config = config
        self._turns.resize(config.api.rate_limit.max_in_flight)
        self._intake.use(config)
        await self._take_settings()
        self._stretch()
        for slot in self.slots.values():
            self._set_resting_status(slot)
            await self._say(slot)
            slot.poked.set()

    async def _take_settings(self) -> None:
        """Puts intervals and switches in force: the file's, and over them what commands have stored."""
        stored = {(s.call, s.name): s.value for s in await self._store.settings()}
        for call, slot in self.slots.items():
            row = self._config.polling[call]
            slot.lateness = row.lateness
            enabled, interval = stored.get((call, "enabled")), stored.get((call, "interval"))
            slot.enabled = row.enabled if enabled is None else msgspec.json.decode(enabled, type=bool)
            self._set_interval(slot, row.interval if interval is None else msgspec.json.decode(interval, type=float))

    async def run(self) -> None:
        """Signs in, then polls every enabled call on its schedule. Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_signed_in(), name="hello")
            group.create_task(self._keep_relations(), name="relations")
            group.create_task(self._keep_fresh(), name="fresh")
            for slot in self.slots.values():
                group.create_task(self._keep(slot), name=f"poll {slot.call}")

    # ── wishes ─────────────────────────────────────────────────────────────────────────────────

    def wish(self, call: str) -> tuple[Awaitable[Done], float]:
        """Asks for a poll now. Returns its end, and in how many seconds it may begin (a pause of the host)."""
        slot = self.slots[call]
        done: asyncio.Future[Done] = asyncio.get_running_loop().create_future()
        slot.wishes.append(done)
        slot.poked.set()
        return done, self._api.pause

    async def change(
        self, call: str, changes: dict[str, bool | float | None], source: str, mark: tuple[str, str] | None
    ) -> None:
        """Stores what a command wants and puts it in force. Raises ValueError when it breaks the request budget."""
        self._check_budget(call, changes)
        settings = [
            Setting(call, name, "" if value is None else encode(value).decode(), source)
            for name, value in changes.items()
        ]
        await self._store.change_settings(settings, mark)
        await self.use(self._config)

    async def release(self, call: str | None) -> int:
        """Lets held removals go with the next poll, which is asked for at once. Returns how many calls were held."""
        held = [slot for slot in self.slots.values() if slot.memory.held_since and call in (None, slot.call)]
        for slot in held:
            memory = msgspec.structs.replace(slot.memory, released=True)
            await self._store.remember(memory)
            slot.memory = memory
            self.wish(slot.call)
        return len(held)

    def _check_budget(self, call: str, changes: dict[str, bool | float | None]) -> None:
        allowed = self._config.api.rate_limit.max_requests_per_hour
        if allowed is None:
            return
        row, intervals = self._config.polling[call], self._wanted_intervals()
        interval = changes.get("interval", self.slots[call].interval)
        enabled = changes.get("enabled", self.slots[call].enabled)
        before = schedule.hourly(intervals, self._requests())
        intervals.pop(call, None)
        if row.enabled if enabled is None else enabled:
            intervals[call] = row.interval if interval is None else float(interval)
        cost = schedule.hourly(intervals, self._requests())
        if cost > allowed and cost > before:
            raise ValueError(
                f"this would cost {cost:.0f} requests an hour, api.rate_limit.max_requests_per_hour is {allowed}"
            )

    # ── the schedule ───────────────────────────────────────────────────────────────────────────

    async def _keep(self, slot: Slot) -> None:
        while True:
            await self._until_due(slot)
            hurry = bool(slot.wishes)
            async with self._turns.turn(hurry=hurry):
                if slot.wishes or (slot.enabled and time.monotonic() >= slot.due):
                    await self._poll(slot)
            self.progress = time.monotonic()

    async def _until_due(self, slot: Slot) -> None:
        """Returns when the call should be polled: it is due and signed in, or somebody wishes it."""
        while not slot.wishes:
            slot.poked.clear()
            left = slot.due - time.monotonic()
            if slot.enabled and self._signed_in.is_set() and left <= 0:
                return
            timeout = min(left, 3600.0) if slot.enabled and self._signed_in.is_set() else None
            try:
                async with asyncio.timeout(timeout):
                    await slot.poked.wait()
            except TimeoutError:
                continue

    async def _poll(self, slot: Slot) -> None:
        wishes, slot.wishes = slot.wishes, []
        if wishes:
            self._api.ask_at_once()
        if self._api.pause > 0 and wishes:
            await asyncio.sleep(self._api.pause)
        started, requests = time.monotonic(), self._api.requests
        slot.running, slot.begun, slot.status, slot.error = True, started, "polling", None
        slot.memory = msgspec.structs.replace(slot.memory, last_poll=self._clock.now(), polled=self._store.steady.now())
        try:
            await self._say(slot)
            if wishes and not self._signed_in.is_set():
                await self._sign_in()
            async with asyncio.timeout(self._config.api.timeout.poll):
                outcome = await self._intake.poll(slot.call)
            wait = await self._succeeded(slot, outcome, started)
        except (ApiError, TimeoutError, sqlite3.OperationalError) as error:
            wait = await self._failed(slot, error)
        finally:
            slot.running = False
        slot.requests = max(1.0, float(self._api.requests - requests))
        self._stretch()
        slot.due = time.monotonic() + wait
        await self._say(slot, wait=wait)
        self._answer(slot, wishes)

    async def _succeeded(self, slot: Slot, outcome: Outcome, started: float) -> float:
        slot.memory = msgspec.structs.replace(
            outcome.memory,
            last_poll=slot.memory.last_poll,
            polled=slot.memory.polled,
            last_success=self._clock.now(),
            succeeded=self._store.steady.now(),
            failures=0,
        )
        slot.status = "held" if outcome.held else "ok"
        slot.error = outcome.alerts[-1].message if outcome.held else None
        slot.records, slot.events, slot.samples = outcome.records, outcome.events, outcome.samples
        slot.duration_ms = round((time.monotonic() - started) * 1000)
        await self._store.remember(slot.memory)
        await self._alert_once(slot, outcome.alerts)
        if outcome.unpaged and ("unpaged", "") not in slot.alerted:
            slot.alerted.add(("unpaged", ""))
            _log.info(
                "%s: the server does not page; polling.%s.page.style: none saves a request",
                slot.call,
                slot.call,
            )
        self._reached("ok", None)
        self._related.set()
        log = _log.info if outcome.events or outcome.samples else _log.debug
        log("%s: %d records, %d events, %d samples", slot.call, slot.records, slot.events, slot.samples)
        return schedule.next_wait(slot.effective, time.monotonic() - started)

    async def _failed(self, slot: Slot, error: Exception) -> float:
        # What the poll had stored before it failed counts; after an error only the disk is trusted.
        failures, last_poll, polled = slot.memory.failures + 1, slot.memory.last_poll, slot.memory.polled
        with contextlib.suppress(sqlite3.OperationalError):
            slot.memory = await self._store.call_memory(slot.call)
        slot.memory = msgspec.structs.replace(slot.memory, failures=failures, last_poll=last_poll, polled=polled)
        slot.error = self._api.masks.text(_sentence(error, self._config.api.timeout.poll))
        chance = random.random()
        wait = schedule.backoff(slot.memory.failures, slot.effective, chance)
        slot.status = "failed"
        match error:
            case Unauthorized():
                slot.status, wait = "unauthorized", schedule.SLOW_RETRY
                self._hello_wanted.set()
                await self._alert_once(slot, [Alert(kind="unauthorized", call=slot.call, message=slot.error)])
            case RateLimited():
                slot.status, wait = "rate_limited", error.pause
            case BadAnswer():
                self._store.keep_piece(slot.call, self._api.masks.piece(error.piece)[:MOST_KEPT])
                await self._alert_once(slot, [Alert(kind="bad_answer", call=slot.call, message=slot.error)])
        if isinstance(error, Unavailable):
            wait = max(wait, error.pause)
            self._reached("unreachable", slot.error)
        _log.warning("%s: %s; next try in %.0f s", slot.call, slot.error, wait)
        return wait

    def _answer(self, slot: Slot, wishes: list[asyncio.Future[Done]]) -> None:
        failed = slot.status in ("failed", "unauthorized", "rate_limited")
        done = Done(self.state(slot), (slot.error or "the poll failed") if failed else None)
        for wish in wishes:
            if not wish.done():
                wish.set_result(done)

    # ── signing in ─────────────────────────────────────────────────────────────────────────────

    async def _keep_signed_in(self) -> None:
        """Polling starts after the first hello that is accepted; later ones only tell how the API is."""
        wait = HELLO_RETRY[0]
        while True:
            self._hello_wanted.clear()
            try:
                await self._sign_in()
                pause, wait = self._config.api.hello.interval, HELLO_RETRY[0]
            except Unauthorized as error:
                _log.error("hello: %s; polling waits for other credentials", error)
                pause = schedule.SLOW_RETRY
            except RateLimited as error:
                pause = error.pause
            except ApiError as error:
                _log.warning("hello: %s; next try in %.0f s", error, wait)
                pause, wait = wait, min(wait * 2, HELLO_RETRY[1])
            await self._pause_before_hello(pause)

    async def _pause_before_hello(self, pause: float) -> None:
        """Hello is asked again when it is due or, not sooner than a minute from now, when a call was refused."""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(pause):
                await self._hello_wanted.wait()
                await asyncio.sleep(max(0.0, min(60.0, pause) - (time.monotonic() - begun)))
        except TimeoutError:
            return

    async def _sign_in(self) -> None:
        try:
            await self._api.hello()
        except Unauthorized as error:
            self._reached("unauthorized", str(error))
            self._signed_in.clear()
            raise
        except ApiError as error:
            if not isinstance(error, RateLimited):
                self._reached("unreachable", str(error))
            raise
        self._reached("ok", None, hello=True)
        self._compare_clocks()
        if not self._signed_in.is_set():
            _log.info("hello: signed in at %s", self._config.api.base_url)
            self._signed_in.set()
            for slot in self.slots.values():
                slot.poked.set()

    def _compare_clocks(self) -> None:
        """Says so when the API's clock and the host's begin to differ, and when they agree again."""
        ahead = (self._api.now() - self._clock.now()) / 1000
        differ = abs(ahead) > self._config.api.clock_tolerance
        if differ and not self._clocks_differ:
            way = "ahead of" if ahead > 0 else "behind"
            _log.warning("the API's clock is %.0f s %s this machine's: one of them is wrong", abs(ahead), way)
        self._clocks_differ = differ

    def sign_in_again(self) -> None:
        """Asks hello at once: the credentials have changed."""
        self._hello_wanted.set()
        for slot in self.slots.values():
            if slot.status == "unauthorized":
                slot.due = time.monotonic()
                slot.poked.set()

    def _reached(
        self, state: Literal["ok", "unauthorized", "unreachable"], error: str | None, *, hello: bool = False
    ) -> None:
        now = rfc3339(self._clock.now())
        before = self.api_state
        since = before.since if before.state == state else now
        error = None if error is None else self._api.masks.text(error)
        self.api_state = ApiState(state, since, now if hello else before.hello_at, error)

    # ── what the bridge says of itself ─────────────────────────────────────────────────────────

    def stuck(self) -> bool:
        """Whether a poll has not ended long after its deadline."""
        limit = self._config.api.timeout.poll + 60.0
        return any(slot.running and time.monotonic() - slot.begun > limit for slot in self.slots.values())

    def state(self, slot: Slot, wait: float | None = None) -> CallState:
        """The row of the polling manager for one call."""
        memory = slot.memory
        left = wait if wait is not None else max(0.0, slot.due - time.monotonic())
        scheduled = slot.enabled and not slot.running
        return CallState(
            call=slot.call,
            enabled=slot.enabled,
            interval=round(slot.interval),
            status=slot.status,
            fresh=self._is_fresh(slot),
            last_poll=rfc3339(memory.last_poll) if memory.last_poll else None,
            last_success=rfc3339(memory.last_success) if memory.last_success else None,
            duration_ms=slot.duration_ms,
            records=slot.records,
            events=slot.events,
            samples=slot.samples,
            next_poll=rfc3339(self._clock.now() + round(left * 1000)) if scheduled else None,
            error=slot.error,
        )

    async def _say(self, slot: Slot, wait: float | None = None) -> None:
        doc = encode(self.state(slot, wait))
        if doc == slot.said:
            return
        now = self._clock.now()
        batch = Batch(
            entries=[Entry("call", slot.call, "state", "state", now, doc)],
            puts=[Put("call", slot.call, doc, entry=0)],
        )
        try:
            await self._store.commit(batch, slot.memory)
            slot.said = doc
        except sqlite3.OperationalError as error:
            _log.error("%s: its state could not be stored: %s", slot.call, error)

    async def _alert_once(self, slot: Slot, alerts: list[Alert]) -> None:
        """Alerts what was not alerted since the call was last without it."""
        fresh = [alert for alert in alerts if (alert.kind, alert.about) not in slot.alerted]
        kept = {key for key in slot.alerted if key[0] in ONCE}
        slot.alerted = {(alert.kind, alert.about) for alert in alerts} | kept
        for alert in fresh:
            _log.warning("%s: %s", slot.call, alert.message)
            await self.alert(alert)

    async def alert(self, alert: Alert) -> None:
        """Puts an alert into the journal."""
        now = self._clock.now()
        said = encode(Alarm(time=rfc3339(now), kind=alert.kind, message=alert.message, call=alert.call))
        try:
            await self._store.commit(Batch(entries=[Entry("bridge", "", "alert", alert.kind, now, said)]))
        except sqlite3.OperationalError as error:
            _log.error("an alert could not be stored: %s (%s)", alert.message, error)

    async def _keep_fresh(self) -> None:
        """Lets `fresh` go false by the clock, without a poll."""
        while True:
            await asyncio.sleep(FRESH_CHECK)
            self.progress = time.monotonic()
            if self._stretch_alert is not None:
                alert, self._stretch_alert = self._stretch_alert, None
                await self.alert(alert)
            for slot in self.slots.values():
                if b'"fresh":true' in slot.said and not self._is_fresh(slot):
                    await self._say(slot)

    def _is_fresh(self, slot: Slot) -> bool:
        return schedule.is_fresh(self._store.steady.age(slot.memory.succeeded), slot.effective, slot.lateness)

    async def _keep_relations(self) -> None:
        while True:
            await self._related.wait()
            self._related.clear()
            try:
                await self._intake.relate()
            except sqlite3.OperationalError as error:
                _log.error("relations could not be stored: %s", error)

    # ── intervals ──────────────────────────────────────────────────────────────────────────────

    def _wanted_intervals(self) -> dict[str, float]:
        return {call: slot.interval for call, slot in self.slots.items() if slot.enabled}

    def _requests(self) -> dict[str, float]:
        return {call: slot.requests for call, slot in self.slots.items()}

    def costs(self) -> dict[str, float]:
        """Requests an hour that each enabled call costs at its effective interval."""
        return {c: 3600.0 / s.effective * s.requests if s.enabled else 0.0 for c, s in self.slots.items()}

    def _stretch(self) -> None:
        limit = self._config.api.rate_limit
        allowed = 3600.0 / limit.min_interval if limit.min_interval > 0 else 3_600_000.0
        if limit.max_requests_per_hour is not None:
            allowed = min(allowed, float(limit.max_requests_per_hour))
        wanted = self._wanted_intervals()
        intervals = schedule.stretched(wanted, self._requests(), allowed)
        for call, slot in self.slots.items():
            slot.effective = intervals.get(call, slot.interval)
        factor = max((intervals[call] / wanted[call] for call in wanted), default=1.0)
        self._stretching, before = factor > 1.0, self._stretching
        if self._stretching and not before:
            self._stretch_alert = Alert(
                kind="intervals_stretched",
                message=f"the enabled calls cost more than the {allowed:.0f} requests an hour that api.rate_limit "
                f"allows; their intervals are stretched {factor:.2f} times",
            )

    def _set_interval(self, slot: Slot, interval: float) -> None:
        """A changed interval counts from the last poll, so that a shorter one takes effect at once."""
        if interval == slot.interval:
            return
        if slot.interval:
            slot.due += interval - slot.interval
        slot.interval = slot.effective = interval

    def _set_resting_status(self, slot: Slot) -> None:
        if slot.running:
            return
        if not slot.enabled:
            slot.status = "disabled"
        elif slot.status == "disabled" or not slot.said:
            slot.status = "waiting"


def _sentence(error: Exception, deadline: float) -> str:
    if isinstance(error, sqlite3.OperationalError):
        return f"the database could not be written: {error}"
    if isinstance(error, TimeoutError):
        return f"the poll took longer than api.timeout.poll, {deadline:.0f} s"
    return str(error)
