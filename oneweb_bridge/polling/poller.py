"""The polling manager: one task per call, its schedule, its state, and the wishes of operators.

The state of a call is a record like any other: compared, committed and published through the journal.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import Literal

import msgspec

from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.errors import ApiError, BadAnswer, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.api.priority_semaphore import PrioritySemaphore
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.units import interval_text
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import Alert, Batch, Entry, RecordWrite, Status
from oneweb_bridge.model.status import Alarm, ApiState, CallState
from oneweb_bridge.polling import schedule
from oneweb_bridge.polling.intake import PollOutcome, PollRunner
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.store import CallProgress, Setting, Store

_log = logging.getLogger("oneweb_bridge.poller")

FRESH_CHECK_S = 2.0
ONCE = frozenset(("unpaged", "time_not_believed"))
"""What is told once per call and run: records are not looked at in each poll, so its absence says nothing."""
MOST_ALERTS = 100
"""Alerts that wait until they can be stored."""
MAX_BAD_ANSWER_BYTES = 2000
"""Bytes of a bad answer that are kept for the operator."""
HELLO_RETRY_S = (2.0, 300.0)
"""Shortest and longest pause between two tries to sign in while the API cannot be reached."""


class PollResult(msgspec.Struct, frozen=True):
    """The end of a wish: the call's state, and what went wrong."""

    state: CallState
    error: str | None = None


class Wish(msgspec.Struct, frozen=True, eq=False):
    """A poll that somebody asked for: its end, and its number in the store where it is kept over a restart."""

    done: asyncio.Future[PollResult]
    number: int | None


class CallRuntime:
    """Everything that belongs to one call while the bridge runs."""

    def __init__(self, call: str, memory: CallProgress) -> None:
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
        self.wishes: list[Wish] = []
        self.ended: frozenset[int] = frozenset()
        self.released = False
        self.running = False
        self.begun = 0.0
        self.said: bytes = b""
        self.alerted: set[tuple[str, str]] = set()
        self.refusals = 0
        """Polls in a row that ended because the database could not be written."""

    @property
    def schedule(self) -> tuple[object, ...]:
        """What configuration and commands say of it, as it is in force."""
        return self.enabled, self.interval, self.effective, self.lateness, self.status


class Poller:
    """`run` polls until it is cancelled. Everything else may be called meanwhile, from the same loop."""

    def __init__(self, intake: PollRunner, store: Store, api: ApiClient, config: Config, clock: Clock = SYSTEM) -> None:
        self.slots: dict[str, CallRuntime] = {}
        self.progress = time.monotonic()
        self.api_state = ApiState("unreachable", rfc3339(clock.now()), error="not asked yet")
        self._intake = intake
        self._store = store
        self._api = api
        self._config = config
        self._clock = clock
        self._permits = PrioritySemaphore(config.api.rate_limit.max_in_flight)
        self._settings: dict[tuple[str, str], str] = {}
        self._signed_in = asyncio.Event()
        self._hello_wanted = asyncio.Event()
        self._related = asyncio.Event()
        self._alerts: list[Entry] = []
        self._stretching = False
        self._clocks_differ = False

    async def load(self) -> None:
        """Reads what is remembered of each call, and the settings that commands have stored."""
        for call in self._config.polling:
            self.slots[call] = CallRuntime(call, await self._store.load_call_progress(call))
        self._settings = {(s.call, s.name): s.value for s in await self._store.settings()}
        self._take_settings()
        for slot in self.slots.values():
            age = self._store.steady.age(slot.memory.polled)
            slot.due = time.monotonic() + schedule.first_wait(age, slot.interval)
        await self.use(self._config)

    async def use(self, config: Config) -> None:
        """Takes a configuration; stored settings stay in force over it."""
        self._config = config
        self._intake.use(config)
        self._permits.resize(config.api.rate_limit.max_in_flight)
        await self._put_in_force()

    async def _put_in_force(self) -> None:
        """Takes the file's intervals and switches, and over them what commands have stored; publishes what changed."""
        before = {slot: slot.schedule for slot in self.slots.values()}
        self._take_settings()
        await self._stretch()
        for slot in self.slots.values():
            self._set_resting_status(slot)
        changed = [slot for slot in self.slots.values() if not slot.said or slot.schedule != before[slot]]
        await self._say(*changed)
        for slot in changed:
            slot.poked.set()

    def _take_settings(self) -> None:
        for call, slot in self.slots.items():
            row = self._config.polling[call]
            slot.lateness = row.lateness
            enabled, interval = self._settings.get((call, "enabled")), self._settings.get((call, "interval"))
            slot.enabled = row.enabled if enabled is None else msgspec.json.decode(enabled, type=bool)
            self._set_interval(slot, row.interval if interval is None else msgspec.json.decode(interval, type=float))

    async def run(self) -> None:
        """Signs in, then polls every enabled call on its schedule. Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_signed_in(), name="hello")
            group.create_task(self._keep_relations(), name="relations")
            group.create_task(self._keep_fresh(), name="fresh")
            group.create_task(self._heartbeat(), name="heartbeat")
            for slot in self.slots.values():
                group.create_task(self._keep(slot), name=f"poll {slot.call}")

    # ── wishes ─────────────────────────────────────────────────────────────────────────────────

    def wish(self, call: str, number: int | None = None) -> tuple[Awaitable[PollResult], float]:
        """Asks for a poll now. Returns its end, and in how many seconds it may begin (a pause of the host).

        `number` is that of the poll request in the store, which goes with the poll that ends.
        """
        slot = self.slots[call]
        wish = Wish(asyncio.get_running_loop().create_future(), number)
        slot.wishes.append(wish)
        slot.poked.set()
        self._permits.make_urgent(call)
        return wish.done, self._api.pause

    async def change(
        self,
        calls: Sequence[str],
        changes: Mapping[str, bool | float | None],
        source: str,
        mark: tuple[str, str] | None,
    ) -> None:
        """Stores what a command wants of these calls and puts it in force, for all of them or for none.

        Raises ValueError when it breaks the request budget, and the store's errors; then nothing is changed.
        """
        self._check_budget(calls, changes)
        settings = [
            Setting(call, name, "" if value is None else encode(value).decode(), source)
            for call in calls
            for name, value in changes.items()
        ]
        await self._store.store_command(settings, mark)
        for setting in settings:
            self._settings.pop((setting.call, setting.name), None)
        self._settings |= {(setting.call, setting.name): setting.value for setting in settings if setting.value}
        await self._put_in_force()

    async def release(self, call: str | None) -> int:
        """Lets what is held go with the next poll, which is asked for at once. Returns how many calls were held."""
        held = [slot for slot in self.slots.values() if slot.memory.is_holding() and call in (None, slot.call)]
        if held:
            await self._store.release_removals([slot.call for slot in held])
        for slot in held:
            # A poll under way has read its progress before, and would store it without this.
            slot.released = True
            slot.memory = msgspec.structs.replace(slot.memory, released=True)
            self.wish(slot.call)
        return len(held)

    def _check_budget(self, calls: Sequence[str], changes: Mapping[str, bool | float | None]) -> None:
        allowed = self._config.api.rate_limit.max_requests_per_hour
        if allowed is None:
            return
        before, after = self._wanted_intervals(), self._wanted_intervals()
        for call in calls:
            row, slot = self._config.polling[call], self.slots[call]
            interval, enabled = changes.get("interval", slot.interval), changes.get("enabled", slot.enabled)
            after.pop(call, None)
            if row.enabled if enabled is None else enabled:
                after[call] = row.interval if interval is None else float(interval)
        cost = schedule.requests_per_hour(after, self._requests())
        if cost > allowed and cost > schedule.requests_per_hour(before, self._requests()):
            raise ValueError(
                f"this would cost {cost:.0f} requests an hour, api.rate_limit.max_requests_per_hour is {allowed}"
            )

    # ── the schedule ───────────────────────────────────────────────────────────────────────────

    async def _keep(self, slot: CallRuntime) -> None:
        while True:
            await self._until_due(slot)
            async with self._permits.acquire(slot.call, urgent=bool(slot.wishes)):
                if slot.wishes or (slot.enabled and time.monotonic() >= slot.due):
                    await self._poll(slot)
            self.progress = time.monotonic()

    async def _until_due(self, slot: CallRuntime) -> None:
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

    async def _poll(self, slot: CallRuntime) -> None:
        if slot.wishes:
            self._api.ask_at_once()
        if self._api.pause > 0 and slot.wishes:
            await asyncio.sleep(self._api.pause)
        # All that were asked for until now are this poll.
        wishes, slot.wishes = slot.wishes, []
        started, requests = time.monotonic(), self._api.requests
        slot.running, slot.begun, slot.status, slot.error = True, started, "polling", None
        slot.released = False
        slot.memory = msgspec.structs.replace(slot.memory, last_poll=self._clock.now(), polled=self._store.steady.now())
        try:
            # Where this cannot be written, the API is not asked for what could not be kept.
            await self._store_states([slot], slot.memory)
            if wishes and not self._signed_in.is_set():
                await self._sign_in()
            async with asyncio.timeout(self._config.api.timeout.poll):
                outcome = await self._intake.poll(slot.call)
            await self._note_cost(slot, requests)
            self._note_success(slot, outcome, started)
            wait = schedule.next_wait(slot.effective, time.monotonic() - started)
            await self._end_poll(slot, wishes, wait, outcome.alerts)
            self._tell_success(slot, outcome)
        except (ApiError, TimeoutError, StoreUnavailable) as error:
            await self._note_cost(slot, requests)
            await self._fail(slot, wishes, error, has_asked=self._api.requests > requests)
        finally:
            slot.running = False
        self._answer(slot, wishes)

    async def _note_cost(self, slot: CallRuntime, requests_before: int) -> None:
        slot.requests = max(1.0, float(self._api.requests - requests_before))
        await self._stretch()

    def _note_success(self, slot: CallRuntime, outcome: PollOutcome, started: float) -> None:
        slot.memory = msgspec.structs.replace(
            outcome.memory,
            last_poll=slot.memory.last_poll,
            polled=slot.memory.polled,
            last_success=self._clock.now(),
            succeeded=self._store.steady.now(),
            failures=0,
            released=outcome.memory.released or slot.released,
        )
        slot.refusals = 0
        slot.status = "held" if outcome.held else "ok"
        slot.error = outcome.held or None
        slot.records, slot.events, slot.samples = outcome.records, outcome.events, outcome.samples
        slot.duration_ms = round((time.monotonic() - started) * 1000)

    def _tell_success(self, slot: CallRuntime, outcome: PollOutcome) -> None:
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

    async def _fail(self, slot: CallRuntime, wishes: list[Wish], error: Exception, *, has_asked: bool) -> None:
        """Notes a poll that failed, and ends it. What it has stored before counts: only the disk is trusted then."""
        failures, last_poll, polled = slot.memory.failures + 1, slot.memory.last_poll, slot.memory.polled
        with contextlib.suppress(StoreUnavailable):
            slot.memory = await self._store.load_call_progress(slot.call)
        slot.memory = msgspec.structs.replace(
            slot.memory,
            failures=failures,
            last_poll=last_poll,
            polled=polled,
            released=slot.memory.released or slot.released,
        )
        slot.error = self._api.masks.mask_text(_error_sentence(error, self._config.api.timeout.poll))
        slot.status, wait, alerts = self._reaction(slot, error)
        if isinstance(error, StoreUnavailable):
            slot.refusals += 1
            retry = schedule.store_retry(slot.refusals, asked_api=has_asked)
            wait = wait if retry is None else min(wait, retry)
        _log.warning("%s: %s; next try in %s", slot.call, slot.error, interval_text(round(wait)))
        try:
            await self._end_poll(slot, wishes, wait, alerts)
        except StoreUnavailable as not_stored:
            slot.said = b""
            _log.error("%s: its state could not be stored: %s", slot.call, not_stored)

    def _reaction(self, slot: CallRuntime, error: Exception) -> tuple[Status, float, list[Alert] | None]:
        """What follows from a failure: the status, how long to wait, and what to alert."""
        message = slot.error or ""
        match error:
            case Unauthorized():
                self._hello_wanted.set()
                alert = Alert(kind="unauthorized", call=slot.call, message=message)
                return "unauthorized", schedule.UNAUTHORIZED_RETRY_S, [alert]
            case RateLimited():
                return "rate_limited", error.pause, None
        wait = schedule.backoff(slot.memory.failures, slot.effective, random.random())
        alerts: list[Alert] | None = None
        match error:
            case BadAnswer():
                self._store.write_bad_answer(
                    slot.call, self._api.masks.mask_bytes(error.excerpt)[:MAX_BAD_ANSWER_BYTES]
                )
                alerts = [Alert(kind="bad_answer", call=slot.call, message=message)]
            case Unavailable():
                wait = max(wait, error.pause)
                self._reached("unreachable", message)
        return "failed", wait, alerts

    async def _end_poll(self, slot: CallRuntime, wishes: list[Wish], wait: float, alerts: list[Alert] | None) -> None:
        """Stores how a poll ended, in one transaction: state, progress, new alerts, and the requests it has served.

        An alert comes once, until a poll came to its end without it; None leaves it as it is.
        """
        slot.running, slot.due = False, time.monotonic() + wait
        slot.ended |= {wish.number for wish in wishes if wish.number is not None}
        new = [alert for alert in alerts or () if (alert.kind, alert.about) not in slot.alerted]
        batch, doc = Batch(entries=[self._alert_entry(alert) for alert in new]), encode(self.state(slot, wait))
        self._add_state(batch, slot, doc)
        memory, ended = slot.memory, slot.ended
        await self._store.commit(batch, memory, tuple(ended))
        slot.said, slot.ended = doc, slot.ended - ended
        if alerts is not None:
            kept = {key for key in slot.alerted if key[0] in ONCE}
            slot.alerted = {(alert.kind, alert.about) for alert in alerts} | kept
        for alert in new:
            _log.warning("%s: %s", slot.call, alert.message)

    def _answer(self, slot: CallRuntime, wishes: list[Wish]) -> None:
        failed = slot.status in ("failed", "unauthorized", "rate_limited")
        done = PollResult(self.state(slot), (slot.error or "the poll failed") if failed else None)
        for wish in wishes:
            if not wish.done.done():
                wish.done.set_result(done)

    # ── signing in ─────────────────────────────────────────────────────────────────────────────

    async def _keep_signed_in(self) -> None:
        """Polling starts after the first hello that is accepted; later ones only tell how the API is."""
        wait = HELLO_RETRY_S[0]
        while True:
            self._hello_wanted.clear()
            try:
                await self._sign_in()
                pause, wait = self._config.api.hello.interval, HELLO_RETRY_S[0]
            except Unauthorized as error:
                _log.error("hello: %s; polling waits for other credentials", error)
                pause = schedule.UNAUTHORIZED_RETRY_S
            except RateLimited as error:
                pause = error.pause
            except ApiError as error:
                _log.warning("hello: %s; next try in %.0f s", error, wait)
                pause, wait = wait, min(wait * 2, HELLO_RETRY_S[1])
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
        error = None if error is None else self._api.masks.mask_text(error)
        self.api_state = ApiState(state, since, now if hello else before.hello_at, error)

    # ── what the bridge says of itself ─────────────────────────────────────────────────────────

    def stuck(self) -> bool:
        """Whether a poll has not ended long after its deadline."""
        limit = self._config.api.timeout.poll + 60.0
        return any(slot.running and time.monotonic() - slot.begun > limit for slot in self.slots.values())

    def state(self, slot: CallRuntime, wait: float | None = None) -> CallState:
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

    def _add_state(self, batch: Batch, slot: CallRuntime, doc: bytes) -> None:
        batch.puts.append(RecordWrite("call", slot.call, doc, entry=len(batch.entries)))
        batch.entries.append(Entry("call", slot.call, "state", "state", self._clock.now(), doc))

    async def _say(self, *slots: CallRuntime, memory: CallProgress | None = None) -> None:
        """Stores the states that have changed, in one transaction; what cannot be stored is tried again soon."""
        with contextlib.suppress(StoreUnavailable):
            await self._store_states(slots, memory)

    async def _store_states(self, slots: Sequence[CallRuntime], memory: CallProgress | None) -> None:
        docs = {slot: doc for slot in slots if (doc := encode(self.state(slot))) != slot.said}
        if not docs:
            return
        batch, ended = Batch(), frozenset(n for slot in docs if not slot.running for n in slot.ended)
        for slot, doc in docs.items():
            self._add_state(batch, slot, doc)
            slot.said = b""
        try:
            await self._store.commit(batch, memory, tuple(ended))
        except StoreUnavailable as error:
            _log.error("%s: the state could not be stored: %s", ", ".join(slot.call for slot in docs), error)
            raise
        for slot, doc in docs.items():
            slot.said, slot.ended = doc, slot.ended - ended

    def _alert_entry(self, alert: Alert) -> Entry:
        now = self._clock.now()
        said = encode(Alarm(time=rfc3339(now), kind=alert.kind, message=alert.message, call=alert.call))
        return Entry("bridge", "", "alert", alert.kind, now, said)

    async def alert(self, alert: Alert) -> None:
        """Puts an alert into the journal; one that cannot be stored is tried again soon."""
        self._alerts.append(self._alert_entry(alert))
        await self._store_alerts()

    async def _store_alerts(self) -> None:
        """Stores the alerts that wait for it. The oldest go when there are more than anybody reads."""
        waiting, self._alerts = self._alerts[-MOST_ALERTS:], []
        if not waiting:
            return
        try:
            await self._store.commit(Batch(entries=waiting))
        except StoreUnavailable as error:
            self._alerts = waiting + self._alerts
            _log.error("%d alerts could not be stored: %s", len(waiting), error)

    async def _keep_fresh(self) -> None:
        """Lets `fresh` go false by the clock, without a poll, and stores what could not be stored."""
        while True:
            await asyncio.sleep(FRESH_CHECK_S)
            await self._store_alerts()
            for slot in self.slots.values():
                if not slot.said or (b'"fresh":true' in slot.said and not self._is_fresh(slot)):
                    await self._say(slot)

    async def _heartbeat(self) -> None:
        """Notes that the event loop turns, also while no poll is due."""
        while True:
            self.progress = time.monotonic()
            await asyncio.sleep(FRESH_CHECK_S)

    def _is_fresh(self, slot: CallRuntime) -> bool:
        return schedule.is_fresh(self._store.steady.age(slot.memory.succeeded), slot.effective, slot.lateness)

    async def _keep_relations(self) -> None:
        while True:
            await self._related.wait()
            self._related.clear()
            try:
                await self._intake.relate()
            except StoreUnavailable as error:
                _log.error("relations could not be stored: %s", error)
                await asyncio.sleep(FRESH_CHECK_S)
                self._related.set()

    # ── intervals ──────────────────────────────────────────────────────────────────────────────

    def _wanted_intervals(self) -> dict[str, float]:
        return {call: slot.interval for call, slot in self.slots.items() if slot.enabled}

    def _requests(self) -> dict[str, float]:
        return {call: slot.requests for call, slot in self.slots.items()}

    def costs(self) -> dict[str, float]:
        """Requests an hour that each enabled call costs at its effective interval."""
        return {c: 3600.0 / s.effective * s.requests if s.enabled else 0.0 for c, s in self.slots.items()}

    async def _stretch(self) -> None:
        """Works out the effective intervals, and alerts when they begin to be longer than wanted."""
        limit = self._config.api.rate_limit
        allowed = 3600.0 / limit.min_interval if limit.min_interval > 0 else 3_600_000.0
        if limit.max_requests_per_hour is not None:
            allowed = min(allowed, float(limit.max_requests_per_hour))
        wanted = self._wanted_intervals()
        intervals = schedule.stretch_intervals(wanted, self._requests(), allowed)
        for call, slot in self.slots.items():
            slot.effective = intervals.get(call, slot.interval)
        factor = max((intervals[call] / wanted[call] for call in wanted), default=1.0)
        self._stretching, before = factor > 1.0, self._stretching
        if self._stretching and not before:
            await self.alert(
                Alert(
                    kind="intervals_stretched",
                    message=f"the enabled calls cost more than the {allowed:.0f} requests an hour that api.rate_limit "
                    f"allows; their intervals are stretched {factor:.2f} times",
                )
            )

    def _set_interval(self, slot: CallRuntime, interval: float) -> None:
        """A changed interval counts from the last poll, so that a shorter one takes effect at once."""
        if interval == slot.interval:
            return
        if slot.interval:
            slot.due += interval - slot.interval
        slot.interval = slot.effective = interval

    def _set_resting_status(self, slot: CallRuntime) -> None:
        if slot.running:
            return
        if not slot.enabled:
            slot.status = "disabled"
        elif slot.status == "disabled" or not slot.said:
            slot.status = "waiting"


def _error_sentence(error: Exception, deadline: float) -> str:
    if isinstance(error, StoreUnavailable):
        return f"the database could not be written: {error}"
    if isinstance(error, TimeoutError):
        return f"the poll took longer than api.timeout.poll, {interval_text(deadline)}"
    return str(error)
