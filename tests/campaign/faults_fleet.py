"""What a fleet may do: vanish, degrade, grow, and have any names and records; and a database that is restored."""

import contextlib
import shutil
from collections.abc import AsyncIterator, Sequence
from functools import partial

from tests import harness, truth
from tests.campaign.fault import Fault
from tests.campaign.scene import Part, Setup, now

IDS = (" ", "a/b", "+", "#", "$SYS", "ä", "_x2f", "\u202e", "0", "null", "z" * 65, "🛰" * 30, "%2F", "'; --")
"""Ids that a topic, a statement or an address could stumble over, and some that are longer than a level may be."""
EAGER = Setup(changes={"removal": {"after_missing": 1, "after_time": "0s"}})
"""Removals after one listing: what protects is the number of them."""
EAGER_REMOVAL = (1, 0.0, 5)
NAMES = ("", " ", "ä" * 400, "a/b+c#d", "\u0000\u0007", "null", "🛰" * 60, "<b>&amp;", "0" * 900, "\u202eback")


@contextlib.asynccontextmanager
async def removed(part: Part) -> AsyncIterator[None]:
    """Two terminals leave, one of them for good; the other is back at the end."""
    part.scene.allow(part.fault, removal=EAGER_REMOVAL)
    gone = part.chance.sample(part.stage.api.truth("terminals"), 2)
    for terminal in gone:
        part.stage.api.fleet("remove", id=terminal["id"])
    yield
    part.stage.api.fleet("restore", id=gone[0]["id"])


@contextlib.asynccontextmanager
async def vanished(part: Part) -> AsyncIterator[None]:
    """Two thirds of the terminals vanish, and come back: that many at once are held."""
    part.scene.allow(part.fault, removal=EAGER_REMOVAL)
    part.scene.is_removal_excluded = True
    gone = part.chance.sample(part.stage.api.truth("terminals"), 8)
    for terminal in gone:
        part.stage.api.fleet("remove", id=terminal["id"])
    yield
    for terminal in gone:
        part.stage.api.fleet("restore", id=terminal["id"])


@contextlib.asynccontextmanager
async def degraded(part: Part) -> AsyncIterator[None]:
    """Every terminal degrades at once, and is online again."""
    for terminal in part.stage.api.truth("terminals"):
        part.stage.api.fleet("set_state", id=terminal["id"], state="degraded")
    yield
    for terminal in part.stage.api.truth("terminals"):
        part.stage.api.fleet("set_state", id=terminal["id"], state="online")


@contextlib.asynccontextmanager
async def renamed(part: Part) -> AsyncIterator[None]:
    """Names of any characters, for terminals, sites and organizations; they stay."""
    api = part.stage.api
    for kind, operation in (
        ("terminals", "rename"),
        ("sites", "rename_site"),
        ("organizations", "rename_organization"),
    ):
        for record in api.truth(kind)[2:]:
            api.fleet(operation, id=record["id"], name=part.chance.choice(NAMES[1:]))
    yield


@contextlib.asynccontextmanager
async def huge(part: Part) -> AsyncIterator[None]:
    """A record that is larger than mqtt.max_payload; it is set aside, and small again at the end."""
    site = part.stage.api.truth("sites")[1]["id"]
    part.scene.allow(part.fault, refused=(f"oneweb/site/{truth.level(site)}",))
    part.stage.api.fleet("rename_site", id=site, name="h" * 100_000)
    yield
    part.stage.api.fleet("rename_site", id=site, name="small again")


@contextlib.asynccontextmanager
async def grown(part: Part) -> AsyncIterator[None]:
    """Thirty terminals come at once, and stay."""
    part.stage.api.fleet("add", count=30)
    yield


@contextlib.asynccontextmanager
async def with_odd_ids(part: Part) -> AsyncIterator[None]:
    """Terminals whose ids are any text come, some of them long; they stay."""
    for number, id in enumerate(part.chance.sample(IDS, 5)):
        part.stage.api.fleet("add", id=id)
        part.stage.api.fleet("rename", id=id, name=f"odd {number}")
    yield


@contextlib.asynccontextmanager
async def restored(part: Part, times: int) -> AsyncIterator[None]:
    """A backup of the begin takes the place of the database at the end, once or twice."""
    copy, path = part.scene.file("copy.db"), part.scene.file("bridge.db")
    code, _, errors = await harness.command("backup", str(copy), "-c", str(part.stage.directory / "bridge.yaml"))
    part.expect(code == 0, f"no backup: {errors[-300:]}")
    yield
    if code:
        return
    for number in range(times):
        async with part.scene.down(kill=bool(number)):
            for name in ("", "-wal", "-shm"):
                path.with_name(f"bridge.db{name}").unlink(missing_ok=True)
            shutil.copy(copy, path)
            part.scene.allow(part.fault, restored_at=(now(),), repeats=True)
        await part.scene.until_running()
        await part.pause(1.0, 3.0)


FAULTS: Sequence[Fault] = (
    Fault(
        name="records removed",
        actor="fleet",
        about="two terminals leave, and one comes back",
        hold=removed,
        setup=EAGER,
    ),
    Fault(name="mass removal", actor="fleet", about="most terminals vanish, and come back", hold=vanished, setup=EAGER),
    Fault(name="mass degradation", actor="fleet", about="every terminal degrades and recovers", hold=degraded),
    Fault(name="names odd", actor="fleet", about="names of any characters", hold=renamed),
    Fault(name="ids odd", actor="fleet", about="terminals with ids of any characters, and long", hold=with_odd_ids),
    Fault(name="record huge", actor="fleet", about="a record over mqtt.max_payload", hold=huge),
    Fault(name="fleet grown", actor="fleet", about="thirty more terminals at once", hold=grown),
    Fault(
        name="backup restored",
        actor="state",
        about="a backup takes the place of the database",
        hold=partial(restored, times=1),
        patience=90.0,
    ),
    Fault(
        name="backup restored twice",
        actor="state",
        about="the same backup takes its place twice",
        hold=partial(restored, times=2),
        patience=90.0,
        cannot_meet={"backup restored": "both replace one file"},
    ),
)
