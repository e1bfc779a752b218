"""Fixtures, the bound of a test, and one mend of a test library."""

import asyncio
import functools
import gc
import inspect
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import hypothesis
import pytest

from oneweb_bridge.demo import mosquitto
from oneweb_bridge.store.places import Place
from tests import harness
from tests.past import Past, open_past
from tests.places import new_database, open_place, run_cluster
from tests.postgres import Cluster

# How long an example takes says how busy the machine is, and nothing of the program.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


PORTS_OF_A_WORKER = 250
"""Of which `free_port` gives one again only after a hundred others."""
_HELD_PORTS: list[socket.socket] = []

# Far above what the slowest test takes on a busy machine. What waits longer waits for ever, and says here where.
LONGEST_TEST = 240.0


def _bounded(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def run(*arguments: Any, **named: Any) -> None:
        async with asyncio.timeout(LONGEST_TEST):
            await test(*arguments, **named)

    return run


def pytest_xdist_auto_num_workers() -> int:
    """Two workers more than there are cores: half of the time tests wait for brokers, pauses and processes.

    At most 32, so that there are ports for two runs on one machine.
    """
    return min((os.cpu_count() or 1) + 2, 32)


def pytest_configure() -> None:
    """Each worker has ports of its own, also beside another run of the tests on this machine.

    Between `free_port` and what listens there, and while a broker or a server is stopped for some seconds, another
    worker could take the same. The range of a worker is the first whose lowest port nobody holds; it holds it till
    its end.
    """
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return
    for first in range(mosquitto.PORTS.start, mosquitto.PORTS.stop - PORTS_OF_A_WORKER, PORTS_OF_A_WORKER):
        held = socket.socket()
        try:
            held.bind(("127.0.0.1", first))
        except OSError:
            held.close()
            continue
        _HELD_PORTS.append(held)
        mosquitto.PORTS = range(first + 1, first + PORTS_OF_A_WORKER)
        return
    raise pytest.UsageError("there is no range of free ports: end the other test runs, or give fewer workers with -n")


def pytest_unconfigure() -> None:
    """The range is free for others."""
    for held in _HELD_PORTS:
        held.close()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each coroutine fails where it waits after `LONGEST_TEST`."""
    for item in items:
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.obj = _bounded(item.obj)


class _ClientResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not know the argument that aiohttp 3.14 asks for."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        named.setdefault("stream_writer", Mock(output_size=0))
        super().__init__(*arguments, **named)


aioresponses.core.ClientResponse = _ClientResponse  # type: ignore[attr-defined]  # not exported, but used


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[harness.World]:
    """A broker, a simulated fleet of eight that stands still, and a directory."""
    async with harness.world(tmp_path) as opened:
        yield opened


@pytest.fixture
def abandoned_sockets() -> Iterator[None]:
    """Paho leaves the socket of a handshake that failed to be collected: now, and not within the next test."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL of its own for all tests of this process."""
    with run_cluster() as opened:
        yield opened


@pytest.fixture
def url(cluster: Cluster) -> Iterator[str]:
    """The address of a database with the tables of the instance `main`, in which nothing was stored yet."""
    with new_database(cluster) as made:
        yield made


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    """An empty place of the state, of either engine."""
    cluster = request.getfixturevalue("cluster") if request.param == "postgres" else None
    async with open_place(request.param, tmp_path, cluster) as opened:
        yield opened


@pytest.fixture
async def past(tmp_path: Path) -> AsyncIterator[Past]:
    """A journal and its trends."""
    async with open_past(tmp_path) as opened:
        yield opened
