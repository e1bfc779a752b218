"""Transactions of a bridge that change the same rows of PostgreSQL at the same time, none of which waits for ever."""

import asyncio

import pytest

from oneweb_bridge.store import store
from oneweb_bridge.store.announcements import DeviceUpdate, DirtyDevice, open_devices
from oneweb_bridge.store.device_marks import MARK_DIRTY
from tests.leases import ask
from tests.places import held

pytestmark = pytest.mark.postgres
WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


async def test_devices_are_noted_while_a_poll_marks_them_in_another_order(url: str) -> None:
    """Neither is ended as a deadlock: the poll would fail, although nothing is wrong."""
    async with held(url) as server, store.open_store(server) as opened, open_devices(server, lambda: 2) as devices:
        async with opened._connections.transaction() as poll:
            await poll.execute_many(MARK_DIRTY, [("terminal", "a", 1), ("terminal", "b", 1)])
        updates = [
            DeviceUpdate(device=DirtyDevice("terminal", id, 1, "", b"", {}), topic=f"homeassistant/{id}", was_sent=True)
            for id in ("a", "b")
        ]
        async with opened._connections.transaction() as poll:
            await poll.execute(MARK_DIRTY, ("terminal", "b", 1))
            noting = asyncio.create_task(devices.note(updates, 1))
            async with asyncio.timeout(20):
                while not ask(url, WAITING):
                    await asyncio.sleep(0.02)
            await poll.execute(MARK_DIRTY, ("terminal", "a", 1))
        await noting
        assert {id for _, id in ask(url, "SELECT topic, id FROM oneweb_main.discovery WHERE topic <> ''")} == {"a", "b"}
