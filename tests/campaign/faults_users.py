"""Faults of people and their programs: commands of any sort, and a configuration that changes."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from tests.campaign.fault import Fault
from tests.campaign.judging import BASE, OTHER_BASE
from tests.campaign.scene import Part, meanwhile, now

CALLS = ("all", "sites", "user_terminals", "ut_signal_quality", "usage_consumption")
BROKEN = (
    b"{",
    b"\xff\xfe",
    b"null",
    b"[]",
    b'{"interval": -1}',
    b'{"interval": 1e999}',
    b'{"surprise": 1}',
    b"x" * 5000,
)
LEAVES = ("set", "poll", "interval/set", "enabled/set", "nothing/set")


@contextlib.asynccontextmanager
async def flooded(part: Part) -> AsyncIterator[None]:
    """Polls and settings, as many as a client can send."""

    async def flood() -> None:
        while True:
            call = part.chance.choice(CALLS)
            await part.scene.say(f"oneweb/bridge/polling/{call}/poll")
            await part.scene.say("oneweb/bridge/polling/sites/interval/set", f"{part.chance.randint(60, 600)}")
            await asyncio.sleep(0.02)

    async with meanwhile(flood()):
        yield


@contextlib.asynccontextmanager
async def broken(part: Part) -> AsyncIterator[None]:
    """Commands that are none."""

    async def send() -> None:
        while True:
            topic = f"oneweb/bridge/polling/{part.chance.choice((*CALLS, 'no_call'))}/{part.chance.choice(LEAVES)}"
            await part.scene.say(topic, part.chance.choice(BROKEN))
            await asyncio.sleep(0.1)

    async with meanwhile(send()):
        yield


@contextlib.asynccontextmanager
async def retained(part: Part) -> AsyncIterator[None]:
    """A retained setting, obeyed once and still with the broker, is changed by another; and a retained poll."""
    first, later = part.chance.sample(range(60, 600), 2)
    setting = json.dumps({"interval": first, "id": f"{first}"})
    await part.scene.say("oneweb/bridge/polling/products/set", setting, retain=True)
    await part.scene.say("oneweb/bridge/polling/sites/poll", json.dumps({"id": f"{first}"}), retain=True)
    async with meanwhile(_change_setting(part, first, later)):
        yield
        if part.scene.is_alone:
            part.expect(await part.scene.is_interval("products", later, 20.0), "a retained setting is not in force")


async def _change_setting(part: Part, first: int, later: int) -> None:
    """Once a setting is in force, another one follows; it must be in force at the end, too."""
    if await part.scene.is_interval("products", first, 60.0):
        await part.scene.say("oneweb/bridge/polling/products/interval/set", f"{later}")
        if await part.scene.is_interval("products", later, 60.0):
            part.scene.checks.append(partial(_expect_setting, part, later))


async def _expect_setting(part: Part, later: int) -> None:
    """A database that was restored may know an older setting."""
    is_restored = any(allowance.restored_at for allowance in part.scene.allowances)
    is_kept = is_restored or await part.scene.is_interval("products", later, 1.0)
    part.stage.expect(is_kept, f"the interval that was set last, {later} s, is in force no more")


@contextlib.asynccontextmanager
async def configured(part: Part, changes: dict[str, Any], *, is_unsure: bool = False) -> AsyncIterator[None]:
    """The bridge is stopped, and goes on with a changed configuration; at the end with that of before."""
    since = now()
    async with part.scene.down():
        part.scene.changes[part.fault] = changes
    await part.scene.until_running()
    yield
    async with part.scene.down():
        del part.scene.changes[part.fault]
    if is_unsure:
        part.scene.allow(part.fault, unsure=((since, now()),))


@contextlib.asynccontextmanager
async def renamed(part: Part) -> AsyncIterator[None]:
    """The bridge goes by another name for a while, with the same database."""
    part.scene.allow(part.fault, renames=True)
    async with configured(part, {"instance": "other"}):
        yield


@contextlib.asynccontextmanager
async def filtered(part: Part) -> AsyncIterator[None]:
    """A filter lets one site pass; what it excludes is not followed, and not removed so soon."""
    site = part.chance.choice(part.stage.api.truth("sites"))["id"]
    async with configured(part, {"filter": {"sites": [site]}}, is_unsure=True):
        yield


@contextlib.asynccontextmanager
async def moved(part: Part) -> AsyncIterator[None]:
    """The bridge publishes below another base for a while. What it leaves behind it clears."""
    async with configured(part, {"mqtt": {"base_topic": OTHER_BASE}}):
        part.scene.base = OTHER_BASE
        yield
        part.scene.base = BASE


MAPPING = {"mapping": {"roles": {"end_customer": ["End Customer", "Kunde"]}}}
FOREIGN = "a broker that forgot whose topics these are is taken by the other instance, as documented"
UNCLEARED = "a broker that forgets the clears of a former base has it again, and the bridge has forgotten that base"
UNKNOWN_BASE = "a backup knows no base to which the bridge moved after it"
REMOVES = "what a filter excludes is removed by the rules that this fault sets to one listing"
FAULTS: Sequence[Fault] = (
    Fault(name="command flood", actor="commands", about="polls and settings in masses", hold=flooded),
    Fault(name="commands broken", actor="commands", about="commands that are none", hold=broken),
    Fault(name="commands retained", actor="commands", about="a retained setting and a retained poll", hold=retained),
    Fault(
        name="instance changed",
        actor="configuration",
        about="another instance with the same database",
        hold=renamed,
        cannot_meet={"broker lost state": FOREIGN},
    ),
    Fault(
        name="filter changed",
        actor="configuration",
        about="all but one site are excluded for a while",
        hold=filtered,
        cannot_meet={"records removed": REMOVES, "mass removal": REMOVES},
    ),
    Fault(
        name="base topic changed",
        actor="configuration",
        about="another base topic for a while",
        hold=moved,
        cannot_meet={
            "broker killed": UNCLEARED,
            "backup restored": UNKNOWN_BASE,
            "backup restored twice": UNKNOWN_BASE,
        },
    ),
    Fault(
        name="mapping changed",
        actor="configuration",
        about="roles have one word more for a while",
        hold=partial(configured, changes=MAPPING),
    ),
)
