"""The poller over a real store and the simulated API, with polls that a test ends when it wants to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oneweb_bridge.config.schema import Config
from oneweb_bridge.decode.catalogue import CALLS
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.records import Alert
from oneweb_bridge.polling import compiled_call, poll_cycle
from oneweb_bridge.polling.call_runtime import PollResult
from oneweb_bridge.polling.poll_context import PollOutcome
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store.call_progress import CallProgress
from oneweb_bridge.store.engine import Transaction
from oneweb_bridge.store.errors import StoreUnavailable
from tests.cancelling import end_tasks
from tests.polls import Bench, bench, configured

SITES, PRODUCTS, TERMINALS = "sites", "products", "user_terminals"
CHANGES: dict[str, bool | float | None] = {"interval": 600.0}


def config_of(b: Bench, **changes: Any) -> Config:
    return configured(b.sim.url, **{**b._changes, **changes})


async def loaded(b: Bench, **changes: Any) -> Poller:
    """A poller that does not run: the test makes its polls."""
    manager = Poller(b.runner, b.store, b.api, config_of(b, **changes), b.clock)
    await manager.load()
    return manager


class Gate:
    """Polls that begin and wait until they are let go, in place of the runner's."""

    def __init__(self, b: Bench) -> None:
        self.begun: list[str] = []
        self.error: Exception | None = None
        """With which every poll ends."""
        self.changed = asyncio.Event()
        self._open = asyncio.Semaphore(0)
        self._store = b.store
        b.runner.poll = self.poll  # type: ignore[method-assign]  # the stage of this story

    async def poll(self, call: str) -> PollOutcome:
        progress = await self._store.progress.load(call)
        self.begun.append(call)
        self.changed.set()
        await self._open.acquire()
        if self.error is not None:
            raise self.error
        return PollOutcome(progress=progress)

    def let_end(self, count: int = 100) -> None:
        """Lets so many polls end, those under way and those to come."""
        for _ in range(count):
            self._open.release()

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.begun) < count:
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def running(manager: Poller) -> AsyncIterator[None]:
    """The poller's tasks while the block runs."""
    task = asyncio.create_task(manager.run())
    try:
        yield
    finally:
        await end_tasks(task)


async def ended(*waits: tuple[Awaitable[PollResult], float]) -> list[PollResult]:
    async with asyncio.timeout(20):
        return [await done for done, _ in waits]


# --- what a command changes -----------------------------------------------------------------------


async def test_set_compiles_nothing_and_forgets_no_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interval that a command changes leaves the plans and what is known of pages; a new mapping does not."""
    async with bench(tmp_path) as b:
        manager = await loaded(b)
        await b.poll(SITES, SITES)
        caches = b.runner._context.page_caches
        pages, plans = dict(caches._caches), b.runner._plans
        compiled: list[str] = []
        monkeypatch.setattr(compiled_call, "compile_call", lambda call, _: compiled.append(call.id))
        await b.news()

        await manager.change([SITES], CHANGES, "mqtt", None)
        await manager.reconfigure(config_of(b, api={"client_secret": "another"}))

        assert pages
        assert pages == caches._caches
        assert (compiled, b.runner._plans) == ([], plans)
        assert [(row.what, row.id) for row in await b.news()] == [("state", SITES)]
        await manager.reconfigure(config_of(b, location_threshold="1m"))
        assert len(compiled) == len(CALLS)
        assert not caches._caches


@pytest.mark.parametrize("fails", [False, True])
async def test_call_that_is_disabled_while_it_is_polled_is_disabled_after_it(tmp_path: Path, fails: bool) -> None:
    """A call that was disabled before, and is polled by request, keeps the status of that poll instead."""
    async with bench(tmp_path) as b:
        manager, gate = await loaded(b, polling={call: {"enabled": call == SITES} for call in CALLS}), Gate(b)
        gate.error = TimeoutError() if fails else None
        async with running(manager):
            polled = manager.request_poll(SITES)
            await gate.until_begun(1)
            await manager.change([SITES], {"enabled": False}, "mqtt", None)
            assert (await b.record("call", SITES))["status"] == "polling"
            gate.let_end(1)
            (result,) = await ended(polled)
            assert result.state.status == ("failed" if fails else "ok")
            await until_status(b, SITES, "disabled")
            gate.let_end(1)
            (result,) = await ended(manager.request_poll(SITES))
            await until_status(b, SITES, result.state.status)
            assert result.state.enabled is False


async def until_status(b: Bench, call: str, status: str) -> None:
    """Waits until a call has this status, and it is enabled no more."""
    async with asyncio.timeout(20):
        while (state := await b.record("call", call))["status"] != status:
            await asyncio.sleep(0.01)
    assert state["enabled"] is False


async def test_set_on_all_is_checked_as_a_whole(tmp_path: Path) -> None:
    """A change of all calls that breaks the budget only together is refused, and nothing of it is stored."""
    async with bench(tmp_path) as b:
        manager = await loaded(b, api={"rate_limit": {"max_requests_per_hour": 500}})
        before = {call: runtime.interval for call, runtime in manager.calls.items()}

        await manager.change([SITES], {"interval": 10.0}, "mqtt", ("one", "fits"))
        await manager.change([SITES], {"interval": None}, "mqtt", ("one", "back"))
        with pytest.raises(ValueError, match="requests an hour"):
            await manager.change(list(manager.calls), {"interval": 10.0, "enabled": True}, "mqtt", ("all", "mark"))

        assert before == {call: runtime.interval for call, runtime in manager.calls.items()}
        assert await b.store.commands.settings() == []
        assert await b.store.commands.last_command_identity("all") is None
        await manager.change(list(manager.calls), {"interval": 3600.0, "enabled": True}, "mqtt", ("all", "mark"))
        assert {runtime.interval for runtime in manager.calls.values()} == {3600.0}
        assert len(await b.store.commands.settings()) == 24


async def test_set_that_cannot_be_stored_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk does not take is not in force either."""
    async with bench(tmp_path) as b:
        manager = await loaded(b)
        before = manager.calls[SITES].interval
        monkeypatch.setattr(b.store.commands, "_write_identity", refuse)
        with pytest.raises(StoreUnavailable):
            await manager.change([SITES], CHANGES, "mqtt", ("t", "m"))
        await manager.reconfigure(config_of(b))

        assert manager.calls[SITES].interval == before
        assert await b.store.commands.settings() == []


async def refuse(*_: Any) -> None:
    raise StoreUnavailable("database or disk is full")


async def test_release_survives_a_poll_that_is_under_way(tmp_path: Path) -> None:
    """Removals that are released while a poll runs go with the next one, though that poll stores its progress last."""
    async with bench(tmp_path) as b:
        for call in (SITES, PRODUCTS):
            await b.store.progress.save(CallProgress(id=call, held_since=1))
        manager, gate = await loaded(b), Gate(b)
        async with running(manager):
            first = manager.request_poll(SITES)
            await gate.until_begun(1)
            assert await manager.release(None) == 2
            gate.begun.clear()
            gate.let_end()
            await ended(first)

            assert (await b.store.progress.load(SITES)).released
            assert (await b.store.progress.load(PRODUCTS)).released
            await gate.until_begun(2)


# --- polls that are asked for ---------------------------------------------------------------------


async def test_poll_request_for_a_queued_call_goes_first(tmp_path: Path) -> None:
    """A call that waits for its turn on its schedule goes before all others as soon as somebody asks for it."""
    async with bench(tmp_path) as b:
        manager, gate = await loaded(b), Gate(b)
        async with running(manager):
            await gate.until_begun(1)
            waiting = [call for call, runtime in manager.calls.items() if runtime.enabled and call not in gate.begun]
            requested = manager.request_poll(waiting[-1])
            gate.let_end()
            await ended(requested)
            assert gate.begun[1] == waiting[-1]


async def test_sighup_changes_how_many_poll_at_once(tmp_path: Path) -> None:
    """api.rate_limit.max_in_flight of a configuration that is read again holds for the polls, too."""
    async with bench(tmp_path) as b:
        manager, gate = await loaded(b), Gate(b)
        async with running(manager):
            await gate.until_begun(1)
            assert len(gate.begun) == 1
            await manager.reconfigure(config_of(b, api={"rate_limit": {"max_in_flight": 3}}))
            await gate.until_begun(3)
            assert len(gate.begun) == 3


async def test_poll_request_is_stored_until_its_poll_has_ended(tmp_path: Path) -> None:
    """What is asked for while a poll runs is a poll of its own, and stays stored until that one has ended."""
    async with bench(tmp_path) as b:
        manager, gate = await loaded(b, polling={call: {"enabled": False} for call in CALLS}), Gate(b)

        async def request_poll() -> tuple[Awaitable[PollResult], float]:
            (number,) = await b.store.commands.add_poll_requests("topic", [SITES], None, ("topic", "mark"))
            return manager.request_poll(SITES, number)

        async with running(manager):
            first = await request_poll()
            await gate.until_begun(1)
            second = await request_poll()
            gate.let_end(1)
            await ended(first)
            assert len(await b.store.commands.poll_requests()) == 1
            gate.let_end(1)
            await ended(second)
            assert await b.store.commands.poll_requests() == []
            assert gate.begun == [SITES, SITES]


# --- how a poll ends ------------------------------------------------------------------------------


async def test_end_of_a_poll_is_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, progress, alerts and the request of a poll that ended are stored together; its begin before that."""
    async with bench(tmp_path) as b:
        manager = await loaded(b)
        await b.news()

        async def poll(call: str) -> PollOutcome:
            progress = CallProgress(id=call, window_end=77)
            return PollOutcome(progress=progress, alerts=[Alert(kind="set_aside", call=call, message="two records")])

        monkeypatch.setattr(b.runner, "poll", poll)
        (number,) = await b.store.commands.add_poll_requests("topic", [SITES], None, None)
        manager.request_poll(SITES, number)
        written: list[int] = []
        store_whole = b.store._connections.transaction

        @contextlib.asynccontextmanager
        async def counted() -> AsyncIterator[Transaction]:
            async with store_whole() as transaction:
                yield transaction
            written.append(1)

        monkeypatch.setattr(b.store._connections, "transaction", counted)
        await manager._poll(manager.calls[SITES])

        assert len(written) == 2
        assert [row.what for row in await b.news()] == ["state", "alert", "state"]
        assert (await b.store.progress.load(SITES)).window_end == 77
        assert await b.store.commands.poll_requests() == []


async def test_poll_whose_end_cannot_be_stored_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress that the disk does not take is not said to be made, and its alert comes with the next poll."""
    async with bench(tmp_path) as b:
        manager = await loaded(b)
        runtime = manager.calls[SITES]

        async def poll(call: str) -> PollOutcome:
            return PollOutcome(
                progress=CallProgress(id=call, window_end=77), alerts=[Alert(kind="a", call=call, message="m")]
            )

        monkeypatch.setattr(b.runner, "poll", poll)
        commit, left = b.store.commit, [1]

        async def full(*given: Any) -> int:
            if not left[0]:
                raise StoreUnavailable("database or disk is full")
            left[0] -= 1
            return await commit(*given)

        monkeypatch.setattr(b.store, "commit", full)
        requested = manager.request_poll(SITES)
        await manager._poll(runtime)
        (failed,) = await ended(requested)
        monkeypatch.setattr(b.store, "commit", commit)

        assert "disk is full" in (failed.error or "")
        assert (runtime.status, runtime.progress.window_end, runtime.progress.failures) == ("failed", 0, 1)
        await b.news()
        await manager._poll(runtime)
        assert [row.what for row in await b.news()] == ["state", "alert", "state"]


async def test_interval_is_counted_from_the_begin_of_the_last_poll(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poll that takes long shortens the pause after it: begins are an interval apart."""
    async with bench(tmp_path) as b:
        manager, now = await loaded(b, polling={SITES: {"interval": "10m"}}), [1000.0]
        monkeypatch.setattr(poll_cycle, "time", SimpleNamespace(monotonic=lambda: now[0]))

        async def slow(call: str) -> PollOutcome:
            now[0] += 250.0
            return PollOutcome(progress=CallProgress(id=call))

        monkeypatch.setattr(b.runner, "poll", slow)
        await manager._poll(manager.calls[SITES])

        assert manager.calls[SITES].due == 1000.0 + 600.0


@pytest.mark.parametrize("disk_fails_at_its_begin", [False, True])
async def test_last_poll_is_the_failed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, disk_fails_at_its_begin: bool
) -> None:
    """`last_poll` is when the last poll began, also when it failed, and after a restart the pause counts from there."""
    async with bench(tmp_path) as b:
        manager = await loaded(b)
        runtime = manager.calls[SITES]
        await manager._poll(runtime)
        good = runtime.progress
        await b.later(1000)
        b.sim.fault("html", path="geographicSite", count=5)
        commit, left = b.store.commit, [1 if disk_fails_at_its_begin else 0]

        async def full(*given: Any) -> int:
            if left[0]:
                left[0] -= 1
                raise StoreUnavailable("database or disk is full")
            return await commit(*given)

        monkeypatch.setattr(b.store, "commit", full)
        await manager._poll(runtime)
        stored = await b.store.progress.load(SITES)

        assert runtime.status == "failed"
        assert manager.state(runtime).last_poll == rfc3339(stored.last_poll)
        assert stored.last_poll - good.last_poll == 1_000_000
        assert stored.polled > good.polled
        assert (stored.last_success, stored.failures) == (good.last_success, 1)


async def test_poll_after_a_refusal_signs_in_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll that somebody asks for after a refusal or a failure begins with a new sign-in, and only such a poll."""
    async with bench(tmp_path) as b:
        manager = await loaded(b)
        await manager._sign_in.sign_in()
        signed_in: list[str] = []

        async def hello() -> None:
            signed_in.append("hello")

        monkeypatch.setattr(b.api, "hello", hello)
        monkeypatch.setattr(b.api, "forget_token", lambda: signed_in.append("token"))
        sites, products = manager.calls[SITES], manager.calls[PRODUCTS]
        b.sim.fault("status", path="geographicSite", status=403, count=2)
        b.sim.fault("status", path="productinventory", status=400, count=1)
        for runtime, status in ((sites, "unauthorized"), (sites, "unauthorized"), (products, "failed")):
            await manager._poll(runtime)
            assert (runtime.status, signed_in) == (status, [])

        for runtime in (sites, products):
            done = manager.request_poll(runtime.call)
            await manager._poll(runtime)
            assert (await ended(done))[0].error is None
        # The second one failed before the sign-in of the first.
        assert signed_in == ["token", "hello"]
        done = manager.request_poll(SITES)
        await manager._poll(sites)
        await ended(done)
        assert signed_in == ["token", "hello"]


async def test_next_poll_follows_the_interval_in_force(tmp_path: Path) -> None:
    """A changed interval counts from the last poll, also where the budget stretches it and no longer does."""
    polling = {call: {"enabled": call in (SITES, PRODUCTS), "interval": "1h"} for call in CALLS}
    async with bench(tmp_path) as b:
        manager = await loaded(b, polling=polling)
        sites = manager.calls[SITES]
        await manager._poll(sites)
        polled = sites.due - 3600.0
        for limits, interval, effective in (
            ({"max_requests_per_hour": 1}, "1h", 3600.0 / 0.45),
            ({"max_requests_per_hour": 10}, "1h", 3600.0),
            ({"max_requests_per_hour": 10}, "2h", 7200.0),
            ({"max_requests_per_hour": None}, "10m", 600.0),
        ):
            polling = {call: {**keys, "interval": interval} for call, keys in polling.items()}
            await manager.reconfigure(config_of(b, api={"rate_limit": limits}, polling=polling))
            assert sites.effective == pytest.approx(effective)
            assert sites.due == pytest.approx(polled + effective, abs=1.0)
        # What a poll of another call has cost stretches intervals without moving polls that wait.
        manager.calls[PRODUCTS].requests, waiting = 100.0, sites.due
        manager._budget.config = config_of(b, api={"rate_limit": {"max_requests_per_hour": 10}}, polling=polling)
        manager._budget.stretch_intervals()
        assert (sites.effective > 600.0, sites.due) == (True, waiting)
        await manager.reconfigure(manager._config)
        assert sites.due == pytest.approx(polled + 600.0, abs=1.0)


async def test_pause_after_a_failure_does_not_grow_with_the_interval(tmp_path: Path) -> None:
    """A call that failed, or was never polled, is not put off by a longer interval; a shorter one bounds its pause."""
    async with bench(tmp_path) as b:
        manager = await loaded(b, polling={SITES: {"interval": "1h"}, PRODUCTS: {"interval": "1h"}})
        sites, products = manager.calls[SITES], manager.calls[PRODUCTS]
        b.sim.fault("status", path="geographicSite", status=403, count=1)
        await manager._poll(sites)
        assert sites.status == "unauthorized"
        pauses = sites.due, products.due
        longer = {SITES: {"interval": "6h"}, PRODUCTS: {"interval": "6h"}}
        await manager.reconfigure(config_of(b, polling=longer))
        assert (sites.due, products.due) == pauses
        await manager.reconfigure(config_of(b, polling={SITES: {"interval": "1m"}}))
        assert sites.due <= time.monotonic() + 60.0


async def test_stretched_intervals_are_alerted_with_those_in_force(tmp_path: Path) -> None:
    """The alert has the cost, the limit and the interval in force of each enabled call."""
    async with bench(tmp_path) as b:
        limits = {"rate_limit": {"max_requests_per_hour": 60}}
        quick = {call: {"enabled": call in (SITES, PRODUCTS), "interval": "1m"} for call in CALLS}
        await loaded(b, api=limits, polling=quick)
        (alert,) = [row.body for row in await b.news() if row.what == "alert"]
        assert alert["kind"] == "intervals_stretched"
        assert "cost 120 requests an hour, and of the 60 that api.rate_limit allows" in alert["message"]
        assert alert["message"].endswith("stretched 2.22 times: products every 133s, sites every 133s")
