"""Faults of the way between the bridge and its broker: cut, dead, slow, garbled."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from tests.campaign.fault import Fault
from tests.campaign.scene import Part, Setup, meanwhile

CUTS = 12
"""How often it is cut at least when nothing else is wrong."""


@contextlib.asynccontextmanager
async def cut(part: Part) -> AsyncIterator[None]:
    """The connection is cut within a message, every few messages."""
    proxy, cuts = part.stage.proxy, part.stage.proxy.cuts
    proxy.cut_after = lambda: part.chance.randint(5, 120)

    async def let_time_pass() -> None:
        while True:
            part.stage.api.advance(1)
            await asyncio.sleep(0.1)

    async with meanwhile(let_time_pass()):
        proxy.sever()
        yield
        if part.scene.is_alone:
            async with asyncio.timeout(60):
                while proxy.cuts < cuts + CUTS:
                    await asyncio.sleep(0.1)
    proxy.cut_after = None


@contextlib.asynccontextmanager
async def half_open(part: Part) -> AsyncIterator[None]:
    """The connection stays open, but nothing passes in either direction; that is noticed within 60 s."""
    part.stage.proxy.swallows = True
    for terminal in part.stage.api.truth("terminals"):
        part.stage.api.fleet("rename", id=terminal["id"], name=f"T{part.chance.randint(1, 10_000)}")
    yield
    if part.scene.is_alone:
        await part.stage.until_ready("broker", is_well=False, patience=60.0)
    part.stage.proxy.swallows = False


@contextlib.asynccontextmanager
async def slow(part: Part) -> AsyncIterator[None]:
    """A link of 20 kB/s."""
    part.stage.proxy.rate = 20_000.0
    yield
    part.stage.proxy.rate = None


@contextlib.asynccontextmanager
async def garbled(part: Part) -> AsyncIterator[None]:
    """Now and then the bridge is given what is no MQTT, or a message on a topic that is no text."""
    nonsense = (
        b"\x00\x00",
        b"\xf0\xff\xff\xff\xff\x7f",
        b"\x40\x00",
        b"\x32\x02\xff\xff",
        b"HTTP/1.1 400 \r\n\r\n",
        b"\x30\x05\x00\x02\xff\xfe\x00",
    )
    part.stage.proxy.garbles = lambda: part.chance.choice(nonsense) if part.chance.random() < 0.02 else b""
    yield
    part.stage.proxy.garbles = None


FAULTS: Sequence[Fault] = (
    Fault(
        name="link cut",
        actor="link",
        about="the connection is cut within messages",
        hold=cut,
        setup=Setup(fleet={"terminals": 20}, is_quick=True),
        overtakes=True,
    ),
    Fault(
        name="link half-open",
        actor="link",
        about="the connection swallows everything in both directions",
        hold=half_open,
        patience=90.0,
        overtakes=True,
    ),
    Fault(name="link slow", actor="link", about="20 kB/s in each direction", hold=slow),
    # A packet that never ends is waited for until the keep-alive ends the connection.
    Fault(
        name="link garbled",
        actor="link",
        about="what is no MQTT comes from the broker",
        hold=garbled,
        patience=120.0,
        overtakes=True,
    ),
)
