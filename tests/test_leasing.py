"""A process whose instances wait for leases: it is ready, starts with pauses, and reads its configuration again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest
import yaml

from oneweb_bridge.cli import leasing, several
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.lease_keeper import HeldLease
from oneweb_bridge.store.lease_rules import Lease
from oneweb_bridge.store.server import Fence, Holding, Server
from tests.cancelling import end_tasks
from tests.postgres import Cluster

TIMEOUT_S = 30.0


def config_of(instance: str, url: str | None, lease: str = "2s", **more: Any) -> Config:
    """A bridge whose state is in a database, or in a file that nobody opens."""
    state: dict[str, Any] = {"path": f"{instance}.db"} if url is None else {"path": None, "url": url, "lease": lease}
    tree = {
        "instance": instance,
        "state": state,
        "mqtt": {"base_topic": instance},
        "http": {"listen": "127.0.0.1:0"},
        **more,
    }
    return parse(yaml.safe_dump(tree), {})


def away() -> str:
    """The address of a server that is not there."""
    return f"postgresql://bridge@127.0.0.1:{mosquitto.free_port()}/x"


@contextlib.asynccontextmanager
async def running(*configs: Config) -> AsyncIterator[tuple[several.Instances, "asyncio.Task[None]"]]:
    instances = several.Instances(configs, Masks())
    task = asyncio.create_task(instances.run())
    try:
        yield instances, task
    finally:
        await end_tasks(task)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(TIMEOUT_S):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations with which bridges were started that then do nothing."""
    started: list[Config] = []

    async def run(config: Config, **_: Any) -> NoReturn:
        started.append(config)
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr("oneweb_bridge.app.run", run)
    return started


async def test_worker_that_waits_for_its_server_is_ready_for_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    """It holds nothing, and its watchdog goes on all the same: else systemd would end a standby after a minute."""
    notified = asyncio.Event()

    async def keep_watchdog(is_alive: Callable[[], bool]) -> None:
        assert is_alive()
        notified.set()

    monkeypatch.setattr("oneweb_bridge.systemd.keep_watchdog", keep_watchdog)
    async with running(config_of("main", away())):
        await asyncio.wait_for(notified.wait(), TIMEOUT_S)


@pytest.mark.postgres
async def test_hangup_changes_nothing_that_needs_a_restart_at_the_next_lease(
    starts: list[Config], cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """The bridge begins anew with its instance and its database, and with what else the file says now."""
    cluster.execute("CREATE DATABASE reloaded")
    url = cluster.url_of("reloaded")
    # Long enough that a busy machine does not lose it before the reload.
    async with running(config_of("main", url, "9s")) as (instances, _):
        await until(lambda: len(starts) == 1)
        instances.reload([config_of("other", away(), log={"level": "debug"})])
        assert "take effect with a restart only" in caplog.text
        cluster.execute("UPDATE oneweb.lease SET epoch = epoch + 1, expires = clock_timestamp()", "reloaded")
        await until(lambda: len(starts) == 2)
    assert [(config.instance, config.state.url) for config in starts] == [("main", url)] * 2
    assert [config.log.level for config in starts] == ["info", "debug"]
    cluster.execute("DROP DATABASE reloaded WITH (FORCE)")


class FakeKeeper:
    """Grants each lease at once."""

    worker = "a"
    reaches_database = True

    def __init__(self) -> None:
        self.epoch = 0
        self.is_held = False

    def epochs(self) -> dict[str, int | None]:
        return {}

    @contextlib.asynccontextmanager
    async def hold(self, instance: str) -> AsyncIterator[tuple[Any, Holding]]:
        self.epoch += 1
        self.is_held = True
        fence = Fence(instance, "a-start", self.epoch)
        held = HeldLease(Lease(fence, asyncio.get_running_loop().time() + 600))
        try:
            yield held, Holding(Server("", instance, fence), self.epoch, self.worker)
        finally:
            held.stop_timer()
            self.is_held = False


async def test_pauses_grow_between_starts_that_fail() -> None:
    """A server that grants leases and nothing else is not asked for one many times a second; others may try before."""
    keeper: Any = FakeKeeper()
    config = config_of("main", away())
    pauses: list[float] = []

    async def fail(_: Config, __: Holding) -> None:
        raise StoreUnavailable("too many clients already")

    async def note(pause: float) -> None:
        assert not keeper.is_held
        pauses.append(pause)
        if len(pauses) == 7:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await leasing.run_while_held(lambda: config, keeper, fail, note)
    assert pauses == [0.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


@pytest.mark.postgres
async def test_database_that_is_dropped_ends_its_instances_alone(
    starts: list[Config], cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    """A bridge with another database goes on; where there is no other the process ends, with a sentence."""
    cluster.execute("CREATE DATABASE dropped")
    url = cluster.url_of("dropped")
    async with running(config_of("a", None), config_of("b", url)) as (instances, task):
        await until(lambda: len(starts) == 2)
        cluster.execute("DROP DATABASE dropped WITH (FORCE)")
        await until(lambda: instances.down == {"b"})
        assert 'database "dropped" does not exist' in caplog.text
        assert "this is a bug" not in caplog.text
        assert not task.done()
    cluster.execute("CREATE DATABASE dropped")
    async with running(config_of("b", url)) as (_, task):
        await until(lambda: len(starts) == 3)
        cluster.execute("DROP DATABASE dropped WITH (FORCE)")
        with pytest.raises(ExceptionGroup) as caught:
            await asyncio.wait_for(task, TIMEOUT_S)
    assert caught.value.subgroup(several.NothingRuns) is not None
    assert caught.value.split(several.NothingRuns)[1] is None
