"""The states of calls and the alerts, as the journal has them.

The state of a call is a record like any other: compared, committed and published through the journal.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from oneweb_bridge.clock import Clock
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import Alert, Batch, Entry, RecordWrite
from oneweb_bridge.model.status import Alarm, CallState
from oneweb_bridge.polling import schedule
from oneweb_bridge.polling.call_runtime import CallRuntime
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.findings import AlertKey, alerts_fact, stopped_fact
from oneweb_bridge.store.store import Store

_log = logging.getLogger("oneweb_bridge.poller")

FRESH_CHECK_S = 2.0
"""Seconds between two looks whether `fresh` has gone false, or something is still to be stored."""
ONCE_PER_RUN = frozenset(("unpaged", "time_not_believed"))
"""Raised once per call and run: not every record is decoded in each poll, so a poll without it proves nothing."""
FAILURES = frozenset(("unauthorized", "bad_answer"))
"""Alerts of polls that failed, which are over with any other end of a poll."""
MAX_WAITING_ALERTS = 100
"""Alerts that wait until they can be stored."""


FINDING = "answer_unexpected"
"""The alert that is also published when it is over."""


def _holding(alerted: Mapping[AlertKey, str], alerts: Sequence[Alert], *, is_whole: bool) -> dict[AlertKey, str]:
    """What holds after a poll with these alerts. One that failed proves nothing of the answers before it."""
    kept = {
        key: message
        for key, message in alerted.items()
        if key[0] in ONCE_PER_RUN or (not is_whole and key[0] not in FAILURES)
    }
    return kept | {(alert.kind, alert.about): alert.message for alert in alerts}


def _resolved(runtime: CallRuntime, holding: Mapping[AlertKey, str]) -> list[Alert]:
    """An alert for each finding that the last poll had and that does not hold any more."""
    return [
        Alert(kind=FINDING, call=runtime.call, about=key[1], message=f"as expected again; it was: {message}")
        for key, message in runtime.alerted.items()
        if key[0] == FINDING and key not in holding
    ]


def _lasting(alerted: Mapping[AlertKey, str]) -> dict[AlertKey, str]:
    """The alerts that hold over a restart."""
    return {key: message for key, message in alerted.items() if key[0] not in ONCE_PER_RUN}


def _new_facts(
    runtime: CallRuntime, holding: Mapping[AlertKey, str], stopped: frozenset[str]
) -> Iterator[tuple[str, str]]:
    """What is to be remembered of alerts over a restart, where it is not what is stored."""
    before, after = _lasting(runtime.alerted), _lasting(holding)
    if before.keys() != after.keys():
        yield alerts_fact(runtime.call, after)
    if stopped != runtime.stopped:
        yield stopped_fact(runtime.call, stopped)


class CallStates:
    """Stores states and alerts; what cannot be stored now is tried again by `retry_loop`."""

    def __init__(self, calls: Mapping[str, CallRuntime], store: Store, clock: Clock) -> None:
        self._calls = calls
        self._store = store
        self._clock = clock
        self._waiting_alerts: list[Entry] = []

    def state(self, runtime: CallRuntime, wait: float | None = None) -> CallState:
        """The state of a call, whose next poll is `wait` seconds from now, or when it is due."""
        progress = runtime.progress
        left = wait if wait is not None else max(0.0, runtime.due - time.monotonic())
        is_scheduled = runtime.enabled and not runtime.running
        return CallState(
            call=runtime.call,
            enabled=runtime.enabled,
            interval=round(runtime.interval),
            status=runtime.status,
            fresh=self._is_fresh(runtime),
            last_poll=rfc3339(progress.last_poll) if progress.last_poll else None,
            last_success=rfc3339(progress.last_success) if progress.last_success else None,
            duration_ms=runtime.duration_ms,
            records=runtime.records,
            events=runtime.events,
            samples=runtime.samples,
            next_poll=rfc3339(self._clock.now() + round(left * 1000)) if is_scheduled else None,
            error=runtime.error,
            coverage=runtime.coverage,
        )

    def _is_fresh(self, runtime: CallRuntime) -> bool:
        return schedule.is_fresh(
            self._store.steady.age(runtime.progress.succeeded), runtime.effective, runtime.lateness
        )

    # ── states ─────────────────────────────────────────────────────────────────────────────────

    async def store_end_of_poll(
        self,
        runtime: CallRuntime,
        wait: float,
        alerts: Sequence[Alert] | None,
        *,
        is_whole: bool,
        stopped: frozenset[str] | None = None,
    ) -> None:
        """Stores how a poll ended, in one transaction: state, progress, new alerts, and the requests it has served.

        An alert is published once, until a poll came to its whole end without it; None leaves the alerts as they are.
        That an answer is as expected again is published too. `stopped` are the terminals whose report has stopped.
        """
        stopped = runtime.stopped if stopped is None else stopped
        holding = runtime.alerted if alerts is None else _holding(runtime.alerted, alerts, is_whole=is_whole)
        raised = {(alert.kind, alert.about): alert for alert in reversed(alerts or ())}
        new = [alert for key, alert in reversed(raised.items()) if key not in runtime.alerted]
        new += _resolved(runtime, holding)
        batch, doc = Batch(entries=[self._alert_entry(alert) for alert in new]), encode(self.state(runtime, wait))
        self._add_state(batch, runtime, doc)
        batch.facts += _new_facts(runtime, holding, stopped)
        ended = runtime.ended
        await self._store.commit(batch, runtime.progress, tuple(ended))
        runtime.stored_state, runtime.ended = doc, runtime.ended - ended
        runtime.alerted, runtime.stopped = dict(holding), stopped
        for alert in new:
            _log.warning("%s: %s", runtime.call, alert.message)

    async def load_alerted(self, runtime: CallRuntime) -> None:
        """Takes over what was alerted before the bridge started again: while it holds, it is no new alert."""
        runtime.alerted = await self._store.findings.load(runtime.call)
        runtime.stopped = frozenset(await self._store.findings.load_stopped(runtime.call))

    async def store_changed(self, runtimes: Iterable[CallRuntime], progress: CallProgress | None = None) -> None:
        """Stores the states that differ from the stored ones, in one transaction. Raises StoreUnavailable."""
        docs = {runtime: doc for runtime in runtimes if (doc := encode(self.state(runtime))) != runtime.stored_state}
        if not docs:
            return
        batch, ended = Batch(), frozenset(n for runtime in docs if not runtime.running for n in runtime.ended)
        for runtime, doc in docs.items():
            self._add_state(batch, runtime, doc)
            runtime.stored_state = b""
        try:
            await self._store.commit(batch, progress, tuple(ended))
        except StoreUnavailable as error:
            _log.error("%s: the state could not be stored: %s", ", ".join(runtime.call for runtime in docs), error)
            for runtime in docs:
                # Another task may have stored an older state meanwhile.
                runtime.stored_state = b""
            raise
        for runtime, doc in docs.items():
            runtime.stored_state, runtime.ended = doc, runtime.ended - ended

    async def publish(self, *runtimes: CallRuntime) -> None:
        """Stores the states that have changed; what cannot be stored is tried again soon."""
        with contextlib.suppress(StoreUnavailable):
            await self.store_changed(runtimes)

    def _add_state(self, batch: Batch, runtime: CallRuntime, doc: bytes) -> None:
        batch.writes.append(RecordWrite("call", runtime.call, doc, entry=len(batch.entries)))
        batch.entries.append(Entry("call", runtime.call, "state", "state", self._clock.now(), doc))

    # ── alerts ─────────────────────────────────────────────────────────────────────────────────

    async def alert(self, alert: Alert) -> None:
        """Appends an alert to the journal; one that cannot be stored is tried again soon."""
        self._waiting_alerts.append(self._alert_entry(alert))
        await self._store_waiting_alerts()

    def _alert_entry(self, alert: Alert) -> Entry:
        now = self._clock.now()
        body = encode(Alarm(time=rfc3339(now), kind=alert.kind, message=alert.message, call=alert.call))
        return Entry("bridge", "", "alert", alert.kind, now, body)

    async def _store_waiting_alerts(self) -> None:
        """Stores the alerts that wait. Of more than `MAX_WAITING_ALERTS` the oldest are dropped."""
        waiting, self._waiting_alerts = self._waiting_alerts[-MAX_WAITING_ALERTS:], []
        if not waiting:
            return
        try:
            await self._store.commit(Batch(entries=waiting))
        except StoreUnavailable as error:
            self._waiting_alerts = waiting + self._waiting_alerts
            _log.error("alerts that could not be stored: %d: %s", len(waiting), error)
        except asyncio.CancelledError:
            # Whose task ends with its connection must not take the alerts of others along. Where the commit was over
            # already, they come twice.
            self._waiting_alerts = waiting + self._waiting_alerts
            raise

    async def retry_loop(self) -> None:
        """Lets `fresh` go false by the clock, without a poll, and stores what could not be stored. Never returns."""
        while True:
            await asyncio.sleep(FRESH_CHECK_S)
            await self._store_waiting_alerts()
            for runtime in self._calls.values():
                stored = runtime.stored_state
                if not stored or (b'"fresh":true' in stored and not self._is_fresh(runtime)):
                    await self.publish(runtime)
