"""One poll of a call, from what was requested to its stored end."""

import asyncio
import contextlib
import logging
import random
import time

import msgspec

from oneweb_bridge.api.client import ApiClient
from oneweb_bridge.api.errors import ApiError, BadAnswer, RateLimited, Unauthorized, Unavailable
from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.units import interval_text
from oneweb_bridge.encoding import count_text
from oneweb_bridge.model.records import Alert, Status
from oneweb_bridge.model.status import Coverage
from oneweb_bridge.polling import schedule
from oneweb_bridge.polling.call_runtime import CallRuntime, RequestedPoll
from oneweb_bridge.polling.call_states import CallStates
from oneweb_bridge.polling.poll_context import PollOutcome
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.polling.request_budget import RequestBudget
from oneweb_bridge.polling.sign_in import SignIn
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.store import Store

_log = logging.getLogger("oneweb_bridge.poller")

MAX_BAD_ANSWER_BYTES = 2000
"""Bytes of a bad answer that are kept for the operator."""


class PollCycle:
    """What every poll of any call does around its runner. `config` is the configuration in force."""

    def __init__(
        self,
        runner: PollRunner,
        store: Store,
        api: ApiClient,
        config: Config,
        clock: Clock,
        *,
        states: CallStates,
        budget: RequestBudget,
        sign_in: SignIn,
    ) -> None:
        self.config = config
        self._runner = runner
        self._store = store
        self._api = api
        self._clock = clock
        self._states = states
        self._budget = budget
        self._sign_in = sign_in

    async def run(self, runtime: CallRuntime) -> bool:
        """Polls a call, and stores how that ended. Returns whether it succeeded."""
        if runtime.requested:
            self._api.ask_at_once()
        if self._api.pause > 0 and runtime.requested:
            await asyncio.sleep(self._api.pause)
        # All that were requested until now are this poll.
        requested, runtime.requested = runtime.requested, []
        was_enabled = runtime.enabled
        started, requests = time.monotonic(), self._api.requests
        failed_at = runtime.begun if runtime.status in ("unauthorized", "failed") else None
        runtime.running, runtime.begun, runtime.status, runtime.error = True, started, "polling", None
        runtime.released = False
        runtime.progress = msgspec.structs.replace(
            runtime.progress, last_poll=self._clock.now(), polled=self._store.steady.now()
        )
        succeeded = False
        try:
            # Where this cannot be written, the API is not asked for what could not be kept.
            await self._states.store_changed([runtime], runtime.progress)
            if requested:
                await self._sign_in_for_request(failed_at)
            async with asyncio.timeout(self.config.api.timeout.poll):
                outcome = await self._runner.poll(runtime.call)
            await self._note_cost(runtime, requests)
            self._note_success(runtime, outcome, started)
            wait = schedule.next_wait(runtime.effective, time.monotonic() - started)
            await self._end_poll(runtime, requested, wait, outcome.alerts, is_whole=True, stopped=outcome.stopped)
            with contextlib.suppress(StoreUnavailable):
                # Behind the alerts: what is lost here is alerted once more after the next start.
                await self._runner.keep_shape(runtime.call, outcome)
            self._log_success(runtime, outcome)
            succeeded = True
        except (ApiError, TimeoutError, StoreUnavailable) as error:
            await self._note_cost(runtime, requests)
            await self._end_failed_poll(runtime, requested, error, has_asked=self._api.requests > requests)
        finally:
            runtime.running = False
        runtime.answer(requested, self._states.state(runtime))
        if was_enabled and not runtime.enabled:
            # It was disabled during the poll, by a command or the file: its status must not say how the poll ended.
            runtime.set_resting_status()
            await self._states.publish(runtime)
        return succeeded

    async def _sign_in_for_request(self, failed_at: float | None) -> None:
        """Signs in where nobody did, and anew after a poll that failed or was refused at that time. Raises ApiError."""
        if failed_at is not None:
            await self._sign_in.renew(failed_at)
        elif not self._sign_in.is_signed_in:
            await self._sign_in.sign_in()

    async def _note_cost(self, runtime: CallRuntime, requests_before: int) -> None:
        runtime.requests = max(1.0, float(self._api.requests - requests_before))
        if (alert := self._budget.stretch_intervals()) is not None:
            await self._states.alert(alert)

    def _note_success(self, runtime: CallRuntime, outcome: PollOutcome, started: float) -> None:
        runtime.progress = msgspec.structs.replace(
            outcome.progress,
            last_poll=runtime.progress.last_poll,
            polled=runtime.progress.polled,
            last_success=self._clock.now(),
            succeeded=self._store.steady.now(),
            failures=0,
            released=outcome.progress.released or runtime.released,
        )
        runtime.refusals = 0
        runtime.status = "held" if outcome.held else "incomplete" if outcome.incomplete else "ok"
        runtime.error = outcome.held or outcome.incomplete or None
        runtime.records, runtime.events, runtime.samples = outcome.records, outcome.events, outcome.samples
        runtime.duration_ms = round((time.monotonic() - started) * 1000)
        if (coverage := outcome.coverage) is not None:
            runtime.coverage = Coverage(coverage.expected, coverage.seen, list(coverage.missing))

    def _log_success(self, runtime: CallRuntime, outcome: PollOutcome) -> None:
        if outcome.unpaged and ("unpaged", "") not in runtime.alerted:
            runtime.alerted["unpaged", ""] = ""
            _log.info(
                "%s: the server does not page; polling.%s.page.style: none saves a request",
                runtime.call,
                runtime.call,
            )
        self._sign_in.note_reached("ok", None)
        log = _log.info if outcome.events or outcome.samples else _log.debug
        counts = ((runtime.records, "record"), (runtime.events, "event"), (runtime.samples, "sample"))
        log("%s: %s", runtime.call, ", ".join(count_text(count, noun) for count, noun in counts))

    async def _end_failed_poll(
        self, runtime: CallRuntime, requested: list[RequestedPoll], error: Exception, *, has_asked: bool
    ) -> None:
        """Notes that a poll failed, and ends it.

        It may have committed some slices, so the call's progress is loaded again instead of keeping our copy.
        """
        self._runner.forget_shape(runtime.call)
        failures, last_poll, polled = runtime.progress.failures + 1, runtime.progress.last_poll, runtime.progress.polled
        with contextlib.suppress(StoreUnavailable):
            runtime.progress = await self._store.progress.load(runtime.call)
        runtime.progress = msgspec.structs.replace(
            runtime.progress,
            failures=failures,
            last_poll=last_poll,
            polled=polled,
            released=runtime.progress.released or runtime.released,
        )
        runtime.error = self._api.masks.mask_text(_error_sentence(error, self.config.api.timeout.poll))
        runtime.status, wait, alerts = self._reaction(runtime, error)
        if isinstance(error, StoreUnavailable):
            runtime.refusals += 1
            retry = schedule.store_retry(runtime.refusals, asked_api=has_asked)
            wait = wait if retry is None else min(wait, retry)
        _log.warning("%s: %s; next try in %s", runtime.call, runtime.error, interval_text(round(wait)))
        try:
            await self._end_poll(runtime, requested, wait, alerts, is_whole=False)
        except StoreUnavailable as not_stored:
            runtime.stored_state = b""
            _log.error("%s: its state could not be stored: %s", runtime.call, not_stored)

    def _reaction(self, runtime: CallRuntime, error: Exception) -> tuple[Status, float, list[Alert] | None]:
        """What follows from a failure: the status, seconds until the next try, and the alerts; None for no change."""
        message = runtime.error or ""
        wait = schedule.backoff(runtime.progress.failures, runtime.effective, random.random())
        match error:
            case Unauthorized():
                self._sign_in.request()
                alert = Alert(kind="unauthorized", call=runtime.call, message=message)
                return "unauthorized", schedule.UNAUTHORIZED_RETRY_S, [alert]
            case RateLimited():
                return "rate_limited", error.pause, None
            case BadAnswer():
                excerpt = self._api.masks.mask_bytes(error.excerpt)[:MAX_BAD_ANSWER_BYTES]
                self._store.bad_answers.write(runtime.call, excerpt)
                return "failed", wait, [Alert(kind="bad_answer", call=runtime.call, message=message)]
            case Unavailable():
                self._sign_in.note_reached("unreachable", message)
                return "failed", max(wait, error.pause), None
        return "failed", wait, None

    async def _end_poll(
        self,
        runtime: CallRuntime,
        requested: list[RequestedPoll],
        wait: float,
        alerts: list[Alert] | None,
        *,
        is_whole: bool,
        stopped: frozenset[str] | None = None,
    ) -> None:
        runtime.running = False
        runtime.set_due(wait, time.monotonic())
        runtime.ended |= {poll.number for poll in requested if poll.number is not None}
        await self._states.store_end_of_poll(runtime, wait, alerts, is_whole=is_whole, stopped=stopped)


def _error_sentence(error: Exception, deadline: float) -> str:
    if isinstance(error, StoreUnavailable):
        return f"the database could not be written: {error}"
    if isinstance(error, TimeoutError):
        return f"the poll took longer than api.timeout.poll, {interval_text(deadline)}"
    return str(error)
