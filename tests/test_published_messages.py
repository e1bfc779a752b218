"""Everything that a running bridge says, in one story, judged by those who listen: AsyncAPI, SCADA, Telegraf."""

import asyncio
import json
from pathlib import Path

import pytest

from oneweb_bridge import __version__
from oneweb_bridge.config.read import load
from oneweb_bridge.contract import asyncapi
from tests import harness, listener, telegraf
from tests.campaign import is_at_rest

KINDS = ("terminals", "products", "organizations", "sites")


class Recorded:
    """All messages of one story, and the configuration of the bridge that sent them."""

    def __init__(self, file: Path, raw: list[tuple[str, bytes, bool]]) -> None:
        self.file = file
        self.raw = raw


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """What a subscriber hears of a bridge to which everything happens that it has a topic for."""
    return asyncio.run(story(tmp_path_factory.mktemp("story")))


async def story(directory: Path) -> Recorded:
    """Records come, change and go; samples are late and corrected; each command is given; the bridge stops."""
    async with harness.world(directory) as world:
        file = world.config(removal={"after_missing": 1, "after_time": "0s", "hold_above": {"count": 9}})
        async with (
            harness.recording(world.port, "oneweb/#", "homeassistant/#") as recorder,
            harness.running(file) as bridge,
        ):
            await recorder.until(lambda: is_at_rest(recorder))
            await recorder.until(lambda: not missing(recorder, ("call", "bridge", "terminal", "product")))
            happen(world)
            await commanded(world, recorder, "polling/all/poll", b'{"id": "all"}')
            await recorder.until(lambda: not missing(recorder, EVERYTHING), 40)
            await commands(world, recorder)
            await bridge.stop()
            await recorder.until(lambda: recorder.retained["oneweb/bridge/status"] == {"state": "offline"})
        return Recorded(file, recorder.raw)


def happen(world: harness.World) -> None:
    """Of each kind one record changes and another goes; a report is corrected; a bucket loses its product."""
    changed, gone = ({kind: world.api.truth(kind)[place]["id"] for kind in KINDS} for place in (1, 2))
    world.api.fleet("set_state", id=changed["terminals"], state="degraded")
    world.api.fleet("firmware", id=changed["terminals"])
    world.api.fleet("set_status", id=changed["products"])
    world.api.fleet("rename_organization", id=changed["organizations"], name="Renamed")
    world.api.fleet("rename_site", id=changed["sites"], name="Renamed")
    report = world.api.truth("usage")[0]
    world.api.fleet("set", id=report["id"], attributes={"bucket": [ownerless(report["bucket"][0])]})
    for id in gone.values():
        world.api.fleet("remove", id=id)
    world.api.fault("corrected", report="signalQuality")
    world.api.fault("missing_key", path="performanceMonitoring/v2/product", count=1)
    world.api.advance(1200)


def ownerless(bucket: dict[str, object]) -> dict[str, object]:
    """A usage bucket that says of no product."""
    members = {name: value for name, value in bucket.items() if name != "product"}
    counters = [{n: v for n, v in counter.items() if n != "product"} for counter in members["bucketCounter"]]  # type: ignore[attr-defined]  # a list of objects
    return {**members, "bucketCounter": counters}


REPORTS = ("traffic", "link_metrics", "link_availability", "resource_state", "signal_quality")
EVERYTHING = (
    *(f"/{kind[:-1]}/ /event/{what}" for kind in KINDS for what in ("added", "changed", "removed")),
    *(f"/terminal/ /history/{report}" for report in REPORTS),
    "/product/ /history/throughput",
    "oneweb/usage/",
    "oneweb/forecast/",
    "oneweb/bridge/alert",
)
"""Parts of topics that must have been recorded before the commands are given."""


def missing(recorder: harness.Recorder, wanted: tuple[str, ...]) -> list[str]:
    """What has not been recorded yet; a word alone is a kind of Home Assistant's devices."""
    topics = recorder.topics()
    parts = {w: w.split(" ") if "/" in w else [f"/device/oneweb_main_{w}"] for w in wanted}
    return [w for w in wanted if not any(all(part in topic for part in parts[w]) for topic in topics)]


async def commanded(world: harness.World, recorder: harness.Recorder, topic: str, payload: bytes) -> None:
    """Gives a command and waits for its answer."""
    await harness.publish(world.port, f"oneweb/bridge/{topic}", payload)
    if "id" in (body := json.loads(payload or b"{}") if payload[:1] == b"{" else {}):
        await recorder.until(lambda: any(isinstance(p, dict) and p.get("id") == body["id"] for p in answers(recorder)))


def answers(recorder: harness.Recorder) -> list[object]:
    """The answers to commands so far."""
    return [answer for topic, answer, _ in recorder.messages if topic.endswith("/result") or "/response/" in topic]


async def commands(world: harness.World, recorder: harness.Recorder) -> None:
    """Each command once, and two that are refused."""
    await harness.publish(world.port, "homeassistant/status", b"online")
    await commanded(world, recorder, "polling/sites/enabled/set", b"ON")
    await commanded(world, recorder, "polling/sites/interval/set", b"1h")
    await commanded(world, recorder, "polling/sites/poll", b"")
    await commanded(world, recorder, "polling/sites/set", b'{"interval": "5m", "id": "set"}')
    await commanded(world, recorder, "polling/nobody/poll", b'{"id": "nobody"}')
    await commanded(world, recorder, "request/republish", b'{"id": "republish"}')
    await commanded(world, recorder, "request/release", b'{"id": "release"}')
    await commanded(world, recorder, "request/purge", b'{"id": "purge"}')
    await commanded(world, recorder, "request/replay", b'{"id": "replay"}')


STRANGE = ("oneweb/bridge/polling/nobody/poll",)
"""What this test itself says that no channel describes: a command for a call that does not exist."""


def test_every_message_is_as_the_document_says(recorded: Recorded) -> None:
    """Each message that the bridge sends has one channel, its retain flag, and a payload of its schema."""
    judge = listener.Judge(asyncapi.document(load(recorded.file, {}), __version__))
    wrong = [
        error
        for topic, payload, retain in recorded.raw
        if topic not in STRANGE
        for error in judge.judge(topic, payload, retain=retain)
    ]

    assert wrong[:5] == []
    assert judge.everything() - judge.received == set()


def test_recorded_messages_cover_every_flag(recorded: Recorded) -> None:
    """The story has late, corrected and replayed samples, replayed events, refused commands, and both states."""
    payloads = b"\n".join(payload for _, payload, _ in recorded.raw)
    for mark in (
        b'"corrected":true',
        b'"replayed":true',
        b'"status":"error"',
        b'"initial":false',
        b'"components.main/SSM"',
        b'{"state":"offline"}',
    ):
        assert mark in payloads, mark
    assert any(b'"specversion"' in payload and b'"replayed":true' in payload for _, payload, _ in recorded.raw)


def test_topic_with_a_message_has_no_topic_below(recorded: Recorded) -> None:
    """Of all topics that the bridge publishes, none is the beginning of another: folders stay folders."""
    topics = {topic for topic, payload, _ in recorded.raw if payload}
    above = {"/".join(levels[:n]) for topic in topics for levels in [topic.split("/")] for n in range(1, len(levels))}

    assert len(topics) > 100
    assert topics & above == set()


def test_fields_keep_their_type(recorded: Recorded) -> None:
    """Below a topic class a field has one JSON type in all messages, each is an object, and none is null."""
    types: dict[tuple[str, str], set[type]] = {}
    for topic, payload, _ in recorded.raw:
        levels = topic.split("/")
        if (
            levels[1] not in ("terminal", "product", "organization", "site", "usage")
            or not payload
            or "event" in levels
        ):
            continue
        body = json.loads(payload)

        assert isinstance(body, dict)
        for name, value in body.items():
            types.setdefault((f"{levels[1]}/{levels[-1] if len(levels) > 4 else levels[-2]}", name), set()).add(
                type(value)
            )

    mixed = {field: kinds for field, kinds in types.items() if len(kinds) > 1 or type(None) in kinds}
    assert mixed == {}
    assert types["terminal/signal_quality", "rsrp_dbm"] == {float}


def test_telegraf_makes_points_of_samples_usage_and_calls(recorded: Recorded) -> None:
    """By the rules of deploy/telegraf/telegraf.conf each sample is a point with its own time, tags and numbers."""
    rules = telegraf.rules()
    points = [
        point
        for topic, payload, _ in recorded.raw
        if payload
        for rule in rules
        for point in telegraf.points(rule, topic, payload)
    ]
    quality = [point for point in points if point.measurement == "oneweb_signal_quality"]
    samples = [(t, json.loads(p)) for t, p, _ in recorded.raw if p and t.endswith("/signal_quality")]

    assert len(quality) == len(samples)
    for point, (topic, sample) in zip(quality, samples, strict=True):
        assert point.tags["imei"] == topic.split("/")[2]
        assert point.ts == sample["ts"]
        assert {type(value) for value in point.fields.values()} == {float}
    assert {"oneweb_traffic", "oneweb_throughput", "oneweb_usage", "oneweb_call", "oneweb_bridge"} <= {
        point.measurement for point in points
    }
    traffic = next(point for point in points if point.measurement == "oneweb_traffic")
    assert {type(value) for value in traffic.fields.values()} == {float}
    assert all(point.fields for point in points)


def test_telegraf_takes_no_message_twice(recorded: Recorded) -> None:
    """No message is taken by two inputs, and every measured topic is taken by one."""
    rules = telegraf.rules()
    for topic in {topic for topic, _, _ in recorded.raw}:
        taken = sum(telegraf.takes(rule, topic) for rule in rules)

        assert taken <= 1, topic
        if topic.startswith(("oneweb/terminal/", "oneweb/product/")) and {"metric", "history"} & set(topic.split("/")):
            assert taken == 1, topic
