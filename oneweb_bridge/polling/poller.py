"""The polling manager: one polling task per call: schedule, state, requested polls."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence

import msgspec

from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.priority_semaphore import PrioritySemaphore
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.config.schema import Config
from oneweb_bridge.encoding import encode
from oneweb_bridge.model.records import Alert
from oneweb_bridge.model.status import ApiState, CallState
from oneweb_bridge.polling import schedule
from oneweb_bridge.polling.call_runtime import CallRuntime, PollResult, RequestedPoll
from oneweb_bridge.polling.call_states import FRESH_CHECK_S, CallStates
from oneweb_bridge.polling.poll_cycle import PollCycle
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.polling.request_budget import RequestBudget
from oneweb_bridge.polling.sign_in import SignIn
from oneweb_bridge.store.commands import Setting, TopicIdentity
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.store import Store

_log = logging.getLogger("oneweb_bridge.poller")

MAX_SLEEP_S = 3600.0
"""A call that is due later looks again after this."""


class Poller:
    """`run` polls until it is cancelled. Everything else may be called meanwhile, from the same loop."""

    def __init__(self, runner: PollRunner, store: Store, api: ApiClient, config: Config, clock: Clock = SYSTEM) -> None:
        self.calls: dict[str, CallRuntime] = {}
        self.progress = time.monotonic()
        """When something moved last."""
        self._runner = runner
        self._store = store
        self._api = api
        self._config = config
        self._permits = PrioritySemaphore(config.api.rate_limit.max_in_flight)
        self._settings: dict[tuple[str, str], str] = {}
        self._relations_wanted = asyncio.Event()
        self._states = CallStates(self.calls, store, clock)
        self._budget = RequestBudget(self.calls, config)
        runner.follow_calls(lambda call: self.calls[call].enabled, self._is_listed_soon)
        self._sign_in = SignIn(api, config, clock, self._wake_all)
        self._cycle = PollCycle(
            runner, store, api, config, clock, states=self._states, budget=self._budget, sign_in=self._sign_in
        )

    @property
    def api_state(self) -> ApiState:
        """How the API is."""
        return self._sign_in.state

    def whole_costs(self) -> dict[str, int]:
        """Requests an hour that each call costs at its effective interval, with the sum of the exact costs, rounded."""
        return self._budget.whole_costs()

    def _is_listed_soon(self, call: str) -> bool:
        """Whether a call that has not listed anything yet will: it is enabled, and has not failed."""
        runtime = self.calls[call]
        return runtime.enabled and runtime.progress.failures == 0

    def state(self, runtime: CallRuntime) -> CallState:
        """The state of a call, as it is published."""
        return self._states.state(runtime)

    def stuck(self) -> bool:
        """Whether a poll has not ended long after its deadline."""
        limit = self._config.api.timeout.poll + 60.0
        return any(runtime.running and time.monotonic() - runtime.begun > limit for runtime in self.calls.values())

    async def alert(self, alert: Alert) -> None:
        """Appends an alert to the journal; one that cannot be stored is tried again soon."""
        await self._states.alert(alert)

    # ── settings ───────────────────────────────────────────────────────────────────────────────

    async def load(self) -> None:
        """Reads the progress of each call, and the settings that commands have stored."""
        for call in self._config.polling:
            self.calls[call] = runtime = CallRuntime(call, await self._store.progress.load(call))
            await self._states.load_alerted(runtime)
        self._settings = {(s.call, s.name): s.value for s in await self._store.commands.settings()}
        self._take_settings()
        for runtime in self.calls.values():
            age, failures = self._store.steady.age(runtime.progress.polled), runtime.progress.failures_in_a_row()
            runtime.set_due(schedule.first_wait(age, runtime.interval, failures), time.monotonic())
        await self.reconfigure(self._config)

    async def reconfigure(self, config: Config) -> None:
        """Takes a configuration; stored settings stay in force over it."""
        self._config = self._budget.config = self._sign_in.config = self._cycle.config = config
        self._runner.reconfigure(config)
        self._permits.resize(config.api.rate_limit.max_in_flight)
        await self._put_in_force()

    def check_budget(self, calls: Sequence[str], changes: Mapping[str, bool | float | None]) -> None:
        """Raises ValueError when these changes break the request budget."""
        self._budget.check(calls, changes)

    async def change(
        self,
        calls: Sequence[str],
        changes: Mapping[str, bool | float | None],
        source: str,
        identity: TopicIdentity | None,
    ) -> None:
        """Stores what a command sets for these calls and puts it in force, for all of them or for none.

        Raises ValueError when it breaks the request budget, and StoreUnavailable; then nothing is changed.
        """
        self.check_budget(calls, changes)
        settings = [
            Setting(call, name, "" if value is None else encode(value).decode(), source)
            for call in calls
            for name, value in changes.items()
        ]
        await self._store.commands.store_command(settings, identity)
        for setting in settings:
            self._settings.pop((setting.call, setting.name), None)
        self._settings |= {(setting.call, setting.name): setting.value for setting in settings if setting.value}
        await self._put_in_force()

    async def _put_in_force(self) -> None:
        """Takes the file's intervals and switches, and over them what commands have stored; publishes what changed."""
        before = {runtime: runtime.schedule for runtime in self.calls.values()}
        self._take_settings()
        alert = self._budget.stretch_intervals()
        for runtime in self.calls.values():
            runtime.follow_interval(time.monotonic())
            runtime.set_resting_status()
        if alert is not None:
            await self._states.alert(alert)
        changed = [
            runtime
            for runtime in self.calls.values()
            if not runtime.stored_state or runtime.schedule != before[runtime]
        ]
        await self._states.publish(*changed)
        for runtime in changed:
            runtime.wake.set()

    def _take_settings(self) -> None:
        for call, runtime in self.calls.items():
            configured = self._config.polling[call]
            runtime.lateness = configured.lateness
            enabled, interval = self._settings.get((call, "enabled")), self._settings.get((call, "interval"))
            runtime.enabled = configured.enabled if enabled is None else msgspec.json.decode(enabled, type=bool)
            runtime.interval = configured.interval if interval is None else msgspec.json.decode(interval, type=float)
            runtime.effective = runtime.interval

    # ── what operators ask for ─────────────────────────────────────────────────────────────────

    def request_poll(self, call: str, number: int | None = None) -> tuple[Awaitable[PollResult], float]:
        """Requests a poll now. Returns its end, and in how many seconds it may begin (a pause of the host).

        `number` is that of the poll request in the store, which is deleted with the poll that ends.
        """
        runtime = self.calls[call]
        poll = RequestedPoll(asyncio.get_running_loop().create_future(), number)
        runtime.requested.append(poll)
        runtime.wake.set()
        self._permits.make_urgent(call)
        return poll.done, self._api.pause

    async def release(self, call: str | None) -> int:
        """Releases what is held with the next poll, which is requested at once. Returns how many calls were held."""
        held = [
            runtime for runtime in self.calls.values() if runtime.progress.is_holding() and call in (None, runtime.call)
        ]
        if held:
            await self._store.progress.release([runtime.call for runtime in held])
        for runtime in held:
            # A poll under way has read its progress before, and would store it without this.
            runtime.released = True
            runtime.progress = msgspec.structs.replace(runtime.progress, released=True)
            self.request_poll(runtime.call)
        return len(held)

    def sign_in_again(self) -> None:
        """Asks hello at once: the credentials have changed."""
        self._sign_in.request()
        for runtime in self.calls.values():
            if runtime.status == "unauthorized":
                runtime.due = time.monotonic()
                runtime.wake.set()

    # ── tasks ──────────────────────────────────────────────────────────────────────────────────

    async def run(self) -> None:
        """Signs in, then polls every enabled call on its schedule. Never returns."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._sign_in.loop(), name="hello")
            group.create_task(self._relations_loop(), name="relations")
            group.create_task(self._states.retry_loop(), name="fresh")
            group.create_task(self._heartbeat_loop(), name="heartbeat")
            for runtime in self.calls.values():
                group.create_task(self._poll_loop(runtime), name=f"poll {runtime.call}")

    async def _poll_loop(self, runtime: CallRuntime) -> None:
        while True:
            await self._wait_until_due(runtime)
            async with self._permits.acquire(runtime.call, urgent=bool(runtime.requested)):
                if runtime.requested or (runtime.enabled and time.monotonic() >= runtime.due):
                    await self._poll(runtime)
            self.progress = time.monotonic()

    async def _poll(self, runtime: CallRuntime) -> None:
        if await self._cycle.run(runtime):
            self._relations_wanted.set()

    async def _wait_until_due(self, runtime: CallRuntime) -> None:
        """Returns when the call should be polled: it is due and signed in, or a poll is requested."""
        while not runtime.requested:
            runtime.wake.clear()
            left = runtime.due - time.monotonic()
            is_scheduled = runtime.enabled and self._sign_in.is_signed_in
            if is_scheduled and left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, MAX_SLEEP_S) if is_scheduled else None):
                    await runtime.wake.wait()

    def _wake_all(self) -> None:
        for runtime in self.calls.values():
            runtime.wake.set()

    async def _heartbeat_loop(self) -> None:
        """Notes that the event loop turns, also while no poll is due."""
        while True:
            self.progress = time.monotonic()
            await asyncio.sleep(FRESH_CHECK_S)

    async def _relations_loop(self) -> None:
        while True:
            await self._relations_wanted.wait()
            self._relations_wanted.clear()
            try:
                await self._runner.update_relations()
            except StoreUnavailable as error:
                _log.error("relations could not be stored: %s", error)
                await asyncio.sleep(FRESH_CHECK_S)
                self._relations_wanted.set()
