"""What comes while a task waits, or ends one that waits: another connection, a reload, a stop; nothing stays wrong."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiomqtt
import msgspec
import pytest

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Positions
from oneweb_bridge.mqtt import publisher
from oneweb_bridge.mqtt.publisher import NotConnected
from oneweb_bridge.sparkplug.session import EdgeSession
from oneweb_bridge.sparkplug.wire import EdgeLink
from oneweb_bridge.tls import BadFile
from oneweb_bridge.trends import replay
from oneweb_bridge.web import series_routes
from tests import harness
from tests.cancelling import end_tasks
from tests.test_publisher import bench, connected


def _reads_late(held: list[bool], reading: threading.Event, released: threading.Event) -> Callable[..., Iterator[Any]]:
    def read(*_: Any) -> Iterator[Any]:
        reading.set()
        held.append(released.wait(10))
        yield []

    return read


@pytest.mark.parametrize("what", ["replay", "csv"])
async def test_loop_goes_on_while_a_cancelled_reader_ends(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay or a download that is given up ends after the page that its thread is reading, and nobody waits."""
    released, reading, held = threading.Event(), threading.Event(), list[bool]()
    read = _reads_late(held, reading, released)
    monkeypatch.setattr(replay, "iter_pages", read)
    monkeypatch.setattr(series_routes, "iter_csv_pages", read)
    anything: Any = None
    task: asyncio.Future[Any]
    if what == "replay":
        task = asyncio.ensure_future(anext(aiter(replay.read_pages(anything, anything, anything))))
    else:
        routes = series_routes.SeriesRoutes(Mock(), Mock())
        monkeypatch.setattr(routes, "_wanted", Mock())
        task = asyncio.ensure_future(routes._send_csv(anything))
    await asyncio.to_thread(reading.wait, 10)
    asyncio.get_running_loop().call_later(0.1, released.set)
    await end_tasks(task)
    assert held == [True]


async def test_reload_that_comes_while_a_connection_begins_is_applied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that is made when the settings change, and has no session yet, is given up for another one."""
    first, second = mosquitto.free_port(), mosquitto.free_port()
    async with (
        mosquitto.run_mosquitto(first),
        mosquitto.run_mosquitto(second),
        bench(tmp_path, first) as made,
    ):
        positions = made.rows.positions

        async def reload_meanwhile() -> Positions:
            monkeypatch.setattr(made.rows, "positions", positions)
            running.reconfigure(msgspec.structs.replace(made.settings, port=second))
            return await positions()

        monkeypatch.setattr(made.rows, "positions", reload_meanwhile)
        async with made.publishing() as running:
            await harness.until_retained(second, "oneweb/bridge/status", lambda status: status == {"state": "online"})


async def test_purge_says_that_a_file_of_tls_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that looks for topics reads the files anew, and one that is being renewed ends no bridge."""

    async def refuse(*_: Any) -> set[str]:
        raise BadFile("mqtt.tls.key: it does not belong to the certificate")

    monkeypatch.setattr(publisher, "retained_topics", refuse)
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), bench(tmp_path, port) as made, made.publishing() as running:
        await connected(running)
        with pytest.raises(NotConnected, match="does not belong to the certificate"):
            await running.purge()


@pytest.mark.parametrize("is_born", [True, False])
async def test_edge_session_that_fails_leaves_its_death_to_the_broker(is_born: bool) -> None:
    """A session that ends though its connection stands says no DISCONNECT, after which the will would be dropped."""
    link = Mock(maximum_packet_size=0)
    link.wait_for_end = asyncio.Event().wait
    edge = object.__new__(EdgeSession)
    edge._link, edge._wire = link, EdgeLink(link, Mock(is_born=is_born))

    async def work() -> None:
        raise aiomqtt.MqttError("the broker refuses the subscription")

    edge._work = work  # type: ignore[method-assign]  # as where access rules change
    with pytest.raises(ExceptionGroup):
        await edge.run()
    assert link.leave_the_will.called == is_born
