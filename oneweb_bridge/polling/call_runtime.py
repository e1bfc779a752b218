"""One call while the bridge runs: its settings in force, its progress, and the polls that were requested of it."""

import asyncio

import msgspec

from oneweb_bridge.model.records import Status
from oneweb_bridge.model.status import CallState, Coverage
from oneweb_bridge.store.call_progress import CallProgress


class PollResult(msgspec.Struct, frozen=True):
    """The end of a requested poll: the call's state, and what went wrong."""

    state: CallState
    error: str | None = None


class RequestedPoll(msgspec.Struct, frozen=True, eq=False):
    """A poll that somebody requested: its end, and the number of its request in the store, if it is stored there."""

    done: asyncio.Future[PollResult]
    number: int | None


class CallRuntime:
    """Everything that belongs to one call while the bridge runs. Times in seconds of the monotonic clock."""

    def __init__(self, call: str, progress: CallProgress) -> None:
        self.call = call
        self.progress = progress
        self.enabled = True
        self.interval = 0.0
        self.effective = 0.0
        """The interval in force: longer than `interval` where the request budget does not allow it."""
        self.lateness = 0.0
        self.status: Status = "waiting"
        self.error: str | None = None
        self.due = 0.0
        self.due_interval = 0.0
        """The interval that `due` follows from."""
        self.requests = 1.0
        """Requests that its last poll cost."""
        self.records = self.events = self.samples = 0
        self.duration_ms: int | None = None
        self.coverage: Coverage | None = None
        """What the last poll found of what was expected."""
        self.wake = asyncio.Event()
        self.requested: list[RequestedPoll] = []
        self.ended: frozenset[int] = frozenset()
        """Numbers of stored poll requests that have been served and are still to be deleted."""
        self.released = False
        """Whether what is held was released while a poll ran."""
        self.running = False
        self.begun = 0.0
        self.stored_state = b""
        """The state as it is in the journal; empty when it has to be stored again."""
        self.alerted: dict[tuple[str, str], str] = {}
        """Kind and subject of the alerts that were published and still hold -> their messages."""
        self.stopped: frozenset[str] = frozenset()
        """The terminals whose report has stopped, as they are stored."""
        self.refusals = 0
        """Polls in a row that ended because the database could not be written."""

    @property
    def schedule(self) -> tuple[object, ...]:
        """What configuration and commands say of it, as it is in force."""
        return self.enabled, self.interval, self.effective, self.lateness, self.status

    def set_due(self, wait: float, now: float) -> None:
        """Sets when the next poll is due, in so many seconds, which follow from the interval in force."""
        self.due, self.due_interval = now + wait, self.effective

    def follow_interval(self, now: float) -> None:
        """Moves the next poll to the interval in force, where that has changed.

        It counts from the last poll, so that a shorter one takes effect at once. A pause after a failure stays as it
        is; it only never lasts longer than the interval.
        """
        if self.progress.polled and not self.progress.failures_in_a_row():
            self.due += self.effective - self.due_interval
        else:
            self.due = min(self.due, now + self.effective)
        self.due_interval = self.effective

    def set_resting_status(self) -> None:
        """Sets the status of a call that is not polled now, after its settings may have changed."""
        if self.running:
            return
        if not self.enabled:
            self.status = "disabled"
        elif self.status == "disabled" or not self.stored_state:
            self.status = "waiting"

    def answer(self, requested: list[RequestedPoll], state: CallState) -> None:
        """Ends requested polls with the state after the poll."""
        failed = self.status in ("failed", "unauthorized", "rate_limited")
        result = PollResult(state, (self.error or "the poll failed") if failed else None)
        for poll in requested:
            if not poll.done.done():
                poll.done.set_result(result)
