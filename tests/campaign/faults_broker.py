"""Faults of the broker: it goes, forgets, refuses, limits, explains at length, and answers late or never."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence

import aiomqtt

from tests import truth
from tests.campaign.fault import Fault
from tests.campaign.scene import Part, Setup, meanwhile

MAX_REFUSALS_IN_A_ROW = 3
"""Of a message that is refused for want of a quota: after five tries the bridge may set it aside."""
ROW_TOPICS = ("oneweb/terminal/", "oneweb/product/", "oneweb/organization/", "oneweb/site/")
NOT_AUTHORIZED, QUOTA_EXCEEDED = 0x87, 0x97
REFUSALS = (0x80, 0x83, QUOTA_EXCEEDED)


@contextlib.asynccontextmanager
async def restarted(part: Part) -> AsyncIterator[None]:
    """The broker is stopped in order and started again, at the begin and at the end."""
    async with part.scene.broker_down():
        await part.pause(0.0, 1.0)
    yield
    async with part.scene.broker_down():
        pass


@contextlib.asynccontextmanager
async def killed(part: Part) -> AsyncIterator[None]:
    """The broker is killed with -9, twice, and goes back to what it had saved."""
    part.scene.allow(part.fault, forgets=True)
    async with part.scene.broker_down(kill=True):
        await part.pause(0.0, 1.0)
    yield
    async with part.scene.broker_down(kill=True):
        pass


@contextlib.asynccontextmanager
async def forgetting(part: Part) -> AsyncIterator[None]:
    """The broker ends at the begin, every few seconds, and at the end, and nothing is left of what it had stored."""
    part.scene.allow(part.fault, forgets=True)
    is_over = False

    async def end_again() -> None:
        while not is_over:
            # In order, too: a broker without persistence forgets either way.
            async with part.scene.broker_down(kill=part.chance.random() < 0.7, forgets=True):
                await part.pause(0.0, 1.0)
            await part.pause(1.0, 3.0)

    # It is not cancelled, which could leave the round without a broker.
    async with asyncio.TaskGroup() as group:
        group.create_task(end_again(), name="forgetting")
        yield
        is_over = True
    async with part.scene.broker_down(kill=True, forgets=True):
        pass


@contextlib.asynccontextmanager
async def away(part: Part) -> AsyncIterator[None]:
    """There is no broker, while the fleet lives."""
    async with part.scene.broker_down():
        if part.scene.is_alone:
            await part.stage.until_ready("broker", is_well=False)
        for terminal in part.stage.api.truth("terminals"):
            part.stage.api.fleet("rename", id=terminal["id"], name=f"T{part.chance.randint(1, 10_000)}")
        yield
        if part.scene.is_alone:
            async with asyncio.timeout(30):
                while await part.stage.backlog() <= 0:
                    await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def refusing_class(part: Part) -> AsyncIterator[None]:
    """Every message of one class of topics is refused, as access rules do."""
    refused = part.chance.choice((*ROW_TOPICS, "homeassistant/"))
    part.scene.refusals[part.fault] = lambda topic: NOT_AUTHORIZED if topic.startswith(refused) else None
    yield
    del part.scene.refusals[part.fault]


@contextlib.asynccontextmanager
async def refusing_some(part: Part) -> AsyncIterator[None]:
    """A share of all messages is answered with an error code, though subscribers get them."""
    part.scene.allow(part.fault, repeats=True)
    share = part.chance.uniform(0.05, 0.25)

    def bend(topic: str) -> int | None:
        is_hit = topic.startswith(ROW_TOPICS) and part.chance.random() < share
        return part.chance.choice(REFUSALS) if is_hit else None

    part.scene.bends[part.fault] = bend
    yield
    if part.scene.is_alone:
        # On a busy machine nothing may have been published yet.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(40):
                while "broker refuses" not in part.stage.bridge.text():
                    await asyncio.sleep(0.1)
    del part.scene.bends[part.fault]
    part.expect("broker refuses" in part.stage.bridge.text(), "a refused message is not in the log")


@contextlib.asynccontextmanager
async def over_quota(part: Part) -> AsyncIterator[None]:
    """A third of all messages is refused because a quota is used up, with a reason of 20,000 characters."""
    in_a_row: Counter[str] = Counter()

    def refuse(topic: str) -> int | None:
        is_hit = topic.startswith(ROW_TOPICS) and part.chance.random() < 0.33
        in_a_row[topic] = in_a_row[topic] + 1 if is_hit and in_a_row[topic] < MAX_REFUSALS_IN_A_ROW else 0
        return QUOTA_EXCEEDED if in_a_row[topic] else None

    part.scene.refusals[part.fault] = refuse
    part.stage.proxy.reason = "the quota of this user is used up " * 600
    yield
    del part.scene.refusals[part.fault]
    part.stage.proxy.reason = ""


@contextlib.asynccontextmanager
async def too_large(part: Part) -> AsyncIterator[None]:
    """One record is larger than the broker takes."""
    site = part.stage.api.truth("sites")[0]["id"]
    topic = f"oneweb/site/{truth.level(site)}"
    part.scene.allow(part.fault, refused=(topic,))
    part.stage.api.fleet("rename_site", id=site, name="x" * 20_000)
    yield
    if part.scene.is_alone:
        recorder = part.stage.recorder
        was_told = await part.stage.until(
            lambda: [alert for alert in recorder.on("oneweb/bridge/alert") if alert["kind"] == "row_set_aside"], 40
        )
        part.expect(was_told, "no alert says that a row was set aside")
    part.stage.api.fleet("rename_site", id=site, name="short again")


@contextlib.asynccontextmanager
async def taking_few(part: Part) -> AsyncIterator[None]:
    """The broker takes two messages at once, while much changes."""
    for terminal in part.stage.api.truth("terminals"):
        part.stage.api.fleet("rename", id=terminal["id"], name=f"T{part.chance.randint(1, 10_000)}")
    yield


@contextlib.asynccontextmanager
async def puback_late(part: Part) -> AsyncIterator[None]:
    """Every PUBACK and SUBACK is late; then the connection is cut with many of them on their way."""
    part.stage.proxy.late = part.chance.choice((0.05, 0.3, 1.5))
    yield
    part.stage.proxy.sever()
    part.stage.proxy.late = 0.0


@contextlib.asynccontextmanager
async def puback_withheld(part: Part) -> AsyncIterator[None]:
    """PUBACKs stop coming while the connection is alive; after 30 s the bridge makes another one."""
    part.scene.bends[part.fault] = lambda topic: -1 if topic.startswith(ROW_TOPICS) else None
    for terminal in part.stage.api.truth("terminals"):
        part.stage.api.fleet("rename", id=terminal["id"], name=f"T{part.chance.randint(1, 10_000)}")
    connections = part.stage.proxy.connections
    yield
    if part.scene.is_alone:
        async with asyncio.timeout(70):
            while part.stage.proxy.connections == connections:
                await asyncio.sleep(0.2)
    del part.scene.bends[part.fault]


@contextlib.asynccontextmanager
async def taken_over(part: Part) -> AsyncIterator[None]:
    """Somebody else connects with the bridge's client id, again and again."""

    async def connect_again() -> None:
        while True:
            await part.pause(0.8, 2.5)
            thief = aiomqtt.Client(
                "127.0.0.1", part.stage.port, identifier="oneweb-bridge-main", protocol=aiomqtt.ProtocolVersion.V5
            )
            with contextlib.suppress(aiomqtt.MqttError):
                async with thief:
                    await part.pause(0.1, 0.7)

    async with meanwhile(connect_again()):
        yield


FAULTS: Sequence[Fault] = (
    Fault(
        name="broker restarted",
        actor="broker",
        about="stopped in order and started, twice",
        hold=restarted,
        overtakes=True,
    ),
    Fault(
        name="broker killed",
        actor="broker",
        about="kill -9 of a broker that saves now and then, twice",
        hold=killed,
        setup=Setup(broker="autosave_interval 25\n"),
        overtakes=True,
    ),
    Fault(
        name="broker lost state",
        actor="broker",
        about="the broker ends every few seconds, and forgets everything",
        hold=forgetting,
        overtakes=True,
    ),
    Fault(
        name="broker away", actor="broker", about="no broker for some seconds", hold=away, patience=80.0, overtakes=True
    ),
    Fault(
        name="class refused",
        actor="broker",
        about="one class of topics is refused",
        hold=refusing_class,
        overtakes=True,
    ),
    Fault(name="some refused", actor="broker", about="PUBACKs with error codes", hold=refusing_some, overtakes=True),
    Fault(
        name="quota used up",
        actor="broker",
        about="a third is refused, with long reasons",
        hold=over_quota,
        overtakes=True,
    ),
    Fault(
        name="record too large",
        actor="broker",
        about="a message over the broker's limit",
        hold=too_large,
        setup=Setup(broker="max_packet_size 8192\n"),
    ),
    Fault(
        name="broker takes few",
        actor="broker",
        about="two messages at once",
        hold=taking_few,
        setup=Setup(broker="max_inflight_messages 2\n"),
    ),
    Fault(
        name="puback late",
        actor="broker",
        about="PUBACKs and SUBACKs up to 1.5 s late, then a cut",
        hold=puback_late,
        overtakes=True,
    ),
    Fault(
        name="puback withheld",
        actor="broker",
        about="PUBACKs never come on a living connection",
        hold=puback_withheld,
        patience=75.0,
        overtakes=True,
    ),
    Fault(name="taken over", actor="broker", about="the same client id elsewhere", hold=taken_over, overtakes=True),
)
