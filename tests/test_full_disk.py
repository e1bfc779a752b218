"""A disk that is full, or fails otherwise, for a while: what failed because of it is tried again soon."""

import asyncio
import contextlib
import time
import types
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from oneweb_bridge import app
from oneweb_bridge.config.read import parse
from oneweb_bridge.model.records import Alert
from oneweb_bridge.mqtt import cursor, publisher
from oneweb_bridge.polling import call_states, poller, schedule
from oneweb_bridge.simulator import Options, serve
from oneweb_bridge.store import housekeeping
from oneweb_bridge.store.errors import StoreUnavailable
from tests.polls import START, configured
from tests.test_api_faults import TERMINALS
from tests.test_publisher import bench

FULL = StoreUnavailable("database or disk is full")


@contextlib.asynccontextmanager
async def built(directory: Path) -> AsyncIterator[app.BridgeParts]:
    """Everything but the outputs, with an API of eight terminals."""
    async with serve(Options(terminals=8, seed=2, start=START, speed=0.0, liveliness=0.0)) as simulator:
        config = configured(simulator.url, state={"path": str(directory / "bridge.db")})
        async with app.open_bridge(config) as parts:
            await parts.api.hello()
            yield parts


def failing(real: Callable[..., Any], allowed: int = 0) -> Callable[..., Any]:
    """A function of the store that works so many times, and then fails as on a full disk."""
    left = [allowed]

    async def call(*arguments: Any, **named: Any) -> Any:
        if left[0] == 0:
            raise FULL
        left[0] -= 1
        return await real(*arguments, **named)

    return call


async def test_poll_that_cannot_be_stored_does_not_ask_and_tries_again_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While nothing can be written the API is left alone, and the call is due within seconds all the time."""
    async with built(tmp_path) as parts:
        runtime, requests = parts.poller.calls[TERMINALS], parts.api.requests
        with monkeypatch.context() as full:
            full.setattr(parts.store, "commit", failing(parts.store.commit))
            for _ in range(12):
                await parts.poller._poll(runtime)
                assert runtime.status == "failed"
                assert "disk is full" in (runtime.error or "")
                assert runtime.due - time.monotonic() <= schedule.MAX_STORE_RETRY_S
            assert parts.api.requests == requests
        await parts.poller._poll(runtime)
        assert (runtime.status, runtime.records, runtime.refusals) == ("ok", 8, 0)


async def test_poll_that_is_stored_in_part_tries_again_soon_but_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the API was asked in vain the pauses are short at first, and then those of any other failure."""
    async with built(tmp_path) as parts:
        runtime = parts.poller.calls[TERMINALS]
        real = parts.store.commit
        for turn in range(schedule.MAX_STORE_RETRIES + 3):
            monkeypatch.setattr(parts.store, "commit", failing(real, allowed=1))
            await parts.poller._poll(runtime)
            is_soon = runtime.due - time.monotonic() <= 2 * schedule.MAX_STORE_RETRY_S
            assert is_soon is (turn < schedule.MAX_STORE_RETRIES)


@pytest.mark.parametrize(("asked_api", "pauses"), [(False, [1, 2, 4, 5, 5]), (True, [1, 2, 4, 8, 10])])
def test_pauses_after_a_store_error_grow_to_a_few_seconds(*, asked_api: bool, pauses: list[float]) -> None:
    """The first comes after a second, and they stay short."""
    assert [schedule.store_retry(n, asked_api=asked_api) for n in range(1, 6)] == pauses


async def test_alert_that_could_not_be_stored_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alerts wait in order, and are in the journal once the disk takes them; only the newest hundred are kept."""
    async with built(tmp_path) as parts:
        with monkeypatch.context() as full:
            full.setattr(parts.store, "commit", failing(parts.store.commit))
            for number in range(call_states.MAX_WAITING_ALERTS + 5):
                await parts.poller.alert(Alert(kind="test", message=f"n{number}"))
        await parts.poller.alert(Alert(kind="test", message="last"))
        rows = await parts.store._connections.rows(
            "SELECT CAST(body AS TEXT) FROM journal WHERE what = 'alert' ORDER BY seq"
        )
        messages = [row[0].split('"message":"')[1].split('"')[0] for row in rows]
        assert messages == [*(f"n{n}" for n in range(6, call_states.MAX_WAITING_ALERTS + 5)), "last"]


async def test_relations_that_could_not_be_stored_are_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They do not wait for the next poll of some call."""
    monkeypatch.setattr(poller, "FRESH_CHECK_S", 0.01)
    async with built(tmp_path) as parts:
        done, turns = asyncio.Event(), [FULL, FULL, None]

        async def relate() -> None:
            error = turns.pop(0)
            if error is not None:
                raise error
            done.set()

        monkeypatch.setattr(parts.poller._runner, "update_relations", relate)
        task = asyncio.create_task(parts.poller._relations_loop())
        parts.poller._relations_wanted.set()
        async with asyncio.timeout(10):
            await done.wait()
        task.cancel()


class Pauses:
    """Stands for `asyncio.sleep` within one module: notes its pauses, and ends after some of them."""

    def __init__(self, most: int) -> None:
        self.seconds: list[float] = []
        self._most = most

    async def sleep(self, seconds: float) -> None:
        """Notes a pause."""
        self.seconds.append(seconds)
        if len(self.seconds) >= self._most:
            raise asyncio.CancelledError

    def module(self) -> types.SimpleNamespace:
        """What the module knows as `asyncio`. In all modules, other tasks would count too, and take the end away."""
        return types.SimpleNamespace(**vars(asyncio) | {"sleep": self.sleep})


async def test_broker_is_tried_soon_where_the_disk_was_at_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session that ended because of the disk is not followed by a minute of silence."""
    async with bench(tmp_path, 1) as made:
        pauses = Pauses(8)

        async def refuse(*_: object) -> None:
            raise FULL

        monkeypatch.setattr(publisher.Publisher, "_connect", refuse)
        monkeypatch.setattr(publisher, "asyncio", pauses.module())
        async with made.publishing() as running:
            with pytest.raises(asyncio.CancelledError):
                await running.run()
        monkeypatch.undo()
        assert max(pauses.seconds) <= 1.2 * cursor.MAX_STORE_RETRY_S


async def test_journal_is_trimmed_again_soon_where_the_disk_was_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trimming may be what makes room, so it is not put off for a minute."""

    async def refuse(*_: object, **__: object) -> int:
        raise FULL

    async def alert(_: Alert) -> None:
        pass

    async with bench(tmp_path, 1):
        pauses = Pauses(3)
        monkeypatch.setattr(housekeeping, "trim", refuse)
        monkeypatch.setattr(housekeeping, "asyncio", pauses.module())
        with pytest.raises(asyncio.CancelledError):
            await housekeeping.housekeeping_loop(
                tmp_path / "bridge.db",
                lambda: parse("", {}).state,
                lambda: ("mqtt",),
                alert,
                now=lambda: 0,
                classes=lambda _: (),
            )
        monkeypatch.undo()
        assert pauses.seconds == [housekeeping.RETRY_S] * 3
