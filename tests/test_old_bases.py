"""A base topic that was renamed: what was retained below the old one goes, once all is below the new one."""

import asyncio
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import aiomqtt
import pytest

from oneweb_bridge.cli.check import _check_broker
from oneweb_bridge.config.read import parse
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.model.records import Message
from oneweb_bridge.mqtt import purge, resend
from oneweb_bridge.mqtt.topics import TopicTree
from tests import harness, proxy
from tests.test_backup import published, sites
from tests.test_owed import ruled_broker
from tests.test_publisher import Bench, bench

OLD, NEW = "oneweb", "renamed"


async def publish_below(directory: Path, port: int, base: str, recorder: harness.Recorder, **changes: Any) -> list[str]:
    """Publishes the journal below a base, and waits until nothing is to be cleared any more. Returns the alerts."""
    async with bench(directory, port, **changes) as made:
        made.base = base
        await made.store.commit(sites(0, 3))
        await published(made, recorder)
        return made.alerts


async def until_cleared(made: Bench) -> None:
    """Waits until the database knows of one base only."""
    async with asyncio.timeout(20):
        while (await made.rows.identity.read()).old_bases(made.base):
            await asyncio.sleep(0.02)


async def kept(port: int, base: str = OLD) -> set[str]:
    return set(await harness.retained(port, f"{base}/#"))


async def test_renamed_base_is_cleared_after_the_new_one_is_complete(tmp_path: Path) -> None:
    """Its topics go, the head last and after all of the new base; what others retain there, and commands, stay."""
    port = mosquitto.free_port()
    others = {"oneweb/bridge/polling/sites/set", "oneweb/note", "oneweb/bridge/probe/x", "oneweb-b/site/x/state"}
    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        for topic in others:
            await harness.publish(port, topic, "{}", retain=True)
        await publish_below(tmp_path, port, OLD, recorder)
        await harness.publish(port, "oneweb/site/vanished/state", "{}", retain=True)
        start = len(recorder.messages)
        async with bench(tmp_path, port) as made:
            made.base = NEW
            async with made.publishing():
                await until_cleared(made)
                assert await kept(port) == others - {"oneweb-b/site/x/state"}
                assert len(await kept(port, NEW)) == 6
        await recorder.catch_up()
        cleared = [topic for topic, content, retain in recorder.messages[start:] if retain and content is None]
        assert cleared[-1] == "oneweb/bridge/head"
        order = [topic for topic, _, _ in recorder.messages[start:]]
        assert order.index(f"{NEW}/bridge/head") < order.index(cleared[0])
        assert "oneweb-b/site/x/state" in await harness.retained(port, "#")


async def test_nested_bases_keep_the_new_one(tmp_path: Path) -> None:
    """A new base below the old one is not taken for a part of it, and neither is an old one below the new one."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(tmp_path, port, "a", recorder)
        for base, other in (("a/terminal", "a"), ("a", "a/terminal")):
            async with bench(tmp_path, port) as made:
                made.base = base
                async with made.publishing():
                    await until_cleared(made)
                    own = TopicTree(base, "", "")
                    left = set(await harness.retained(port, "#"))
                    assert {"status", "info", "head"} == {t.rpartition("/")[2] for t in left if "/bridge/" in t}
                    assert {topic for topic in left if not topic.startswith(f"{base}/")} == set()
                    assert own.head in left
                    assert not any(topic.startswith(f"{other}/bridge/") for topic in left)


async def test_crash_while_clearing_leaves_the_rest_to_the_next_start(tmp_path: Path) -> None:
    """Until the head is cleared the base is known as one that is to be cleared."""
    port = mosquitto.free_port()

    async def break_off(messages: Sequence[Message]) -> list[bool]:
        raise aiomqtt.MqttError(f"lost with {len(messages)} messages")

    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(tmp_path, port, OLD, recorder)
        await publish_below(tmp_path, port, NEW, recorder, clear_old_base=False)
        async with bench(tmp_path, port) as made:
            made.base = NEW
            tree = TopicTree(NEW, "main", made.store.journal_id)
            with pytest.raises(aiomqtt.MqttError, match="lost with"):
                await purge.clear_old_bases(made.settings, tree, made.rows, break_off, is_requested=False)
            assert (await made.rows.identity.read()).old_bases(NEW) == [OLD]
            assert await kept(port)
            async with made.publishing():
                await until_cleared(made)
                assert await kept(port) == set()


async def come_back(directory: Path, port: int, wanted: set[str] | None = None) -> None:
    """Starts with the old base again, until the database knows of no other, and until `wanted` is retained there."""
    async with bench(directory, port) as made:
        made.base = OLD
        async with made.publishing():
            await until_cleared(made)
            async with asyncio.timeout(20):
                while wanted is not None and await kept(port) != wanted:
                    await asyncio.sleep(0.02)


@pytest.mark.parametrize("with_former_file", [False, True])
async def test_base_cleared_in_part_is_complete_when_the_bridge_comes_back(
    with_former_file: bool, tmp_path: Path
) -> None:
    """What a clear that broke off has taken away is published again: the head says that nothing is there for sure.

    Also where the machine's state of before the change is back, whose database knows of no other base.
    """
    port, place = mosquitto.free_port(), tmp_path / "place"
    place.mkdir()

    async def publish_half(messages: Sequence[Message]) -> list[bool]:
        for message in messages[: (len(messages) + 1) // 2]:
            await harness.publish(port, message.topic, message.payload, retain=True)
        if len(messages) > 1:
            raise aiomqtt.MqttError("lost in between")
        return [True]

    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(place, port, OLD, recorder)
        former = shutil.copytree(place, tmp_path / "former")
        await publish_below(place, port, NEW, recorder, clear_old_base=False)
        before = await kept(port)
        async with bench(place, port) as made:
            tree = TopicTree(NEW, "main", made.store.journal_id)
            with pytest.raises(aiomqtt.MqttError, match="lost in between"):
                await purge.clear_old_bases(made.settings, tree, made.rows, publish_half, is_requested=False)
        left = await kept(port)
        assert f"{OLD}/bridge/head" in left < before
        await come_back(former if with_former_file else place, port, before)
        assert await kept(port) == before
        assert with_former_file or await kept(port, NEW) == set()


async def test_first_start_that_broke_off_below_a_new_base_leaves_nothing_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the bridge goes back before all was published, what it left is known as its own, and cleared."""
    port = mosquitto.free_port()

    async with (
        mosquitto.run_mosquitto(port),
        proxy.between(port) as gate,
        harness.recording(port, "#") as recorder,
    ):

        async def lose_connection(_made: resend.Resend, _after_seq: int, _through_seq: int) -> int:
            gate.sever()
            await asyncio.sleep(3600)
            return 0

        await publish_below(tmp_path, port, OLD, recorder)
        monkeypatch.setattr(resend.Resend, "restore", lose_connection)
        async with bench(tmp_path, gate.port) as made:
            made.base = NEW
            async with made.publishing():
                await recorder.until(lambda: f"{NEW}/bridge/info" in recorder.retained)
        monkeypatch.undo()
        assert await kept(port, NEW)
        await come_back(tmp_path, port)
        assert await kept(port, NEW) == set()


async def test_refused_clear_keeps_the_base_known(tmp_path: Path) -> None:
    """What the broker does not let the bridge clear is tried again with the next connection."""
    port = mosquitto.free_port()

    async def refuse(messages: Sequence[Message]) -> list[bool]:
        return [False] * len(messages)

    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(tmp_path, port, OLD, recorder)
        async with bench(tmp_path, port) as made:
            tree = TopicTree(NEW, "main", made.store.journal_id)
            with pytest.raises(aiomqtt.MqttError, match="access rules"):
                await purge.clear_old_bases(made.settings, tree, made.rows, refuse, is_requested=False)
            assert (await made.rows.identity.read()).old_bases(NEW) == [OLD]


async def test_old_base_that_cannot_be_read_stays_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Access rules that were moved to the new base hide what is left: it is told, and cleared once they are mended."""
    async with ruled_broker(tmp_path) as (port, rules):
        async with harness.recording(port, "#") as recorder:
            await publish_below(tmp_path, port, OLD, recorder)
            before = await kept(port)
            await rules.say("oneweb/#")
            async with bench(tmp_path, port) as made:
                made.base = NEW
                async with made.publishing() as running:
                    await recorder.until(lambda: "could not be cleared now: the broker refuses" in caplog.text)
                    assert (await made.rows.identity.read()).old_bases(NEW) == [OLD]
                    await rules.say()
                    assert await running.purge() == len(before) > 0
        assert await kept(port) == set()


async def test_old_base_that_cannot_be_read_keeps_no_other_up(tmp_path: Path) -> None:
    """Of two former bases the one that can be read is cleared."""
    async with ruled_broker(tmp_path) as (port, rules), harness.recording(port, "#") as recorder:
        for base in (OLD, "second"):
            await publish_below(tmp_path, port, base, recorder, clear_old_base=False)
        await rules.say("oneweb/#")
        async with bench(tmp_path, port) as made:
            made.base = NEW
            async with made.publishing(), asyncio.timeout(20):
                while (await made.rows.identity.read()).old_bases(NEW) != [OLD]:
                    await asyncio.sleep(0.02)
        assert await kept(port, "second") == set()


async def test_old_base_is_left_to_purge_where_that_is_configured(tmp_path: Path) -> None:
    """With `clear_old_base: false` it stays until `request/purge`, which clears it."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(tmp_path, port, OLD, recorder)
        await publish_below(tmp_path, port, NEW, recorder, clear_old_base=False)
        assert len(await kept(port)) == 6
        async with bench(tmp_path, port, clear_old_base=False) as made:
            made.base = NEW
            async with made.publishing() as running:
                await recorder.until(lambda: running.connected_since is not None)
                assert await running.purge() == 6
                assert await kept(port) == set()


@pytest.mark.parametrize("head", [None, '{"journal": "x", "instance": "main", "seq": 1}', "{}"])
async def test_base_of_another_bridge_is_left_alone(tmp_path: Path, head: str | None) -> None:
    """Where the head is not this database's own any more, nothing is cleared, also not by `purge`."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(tmp_path, port, OLD, recorder)
        await harness.publish(port, "oneweb/bridge/head", head or "", retain=True)
        before = await kept(port)
        async with bench(tmp_path, port) as made:
            made.base = NEW
            async with made.publishing() as running:
                await until_cleared(made)
                assert await running.purge() == 0
        assert await kept(port) == before


async def test_base_that_says_online_is_cleared_on_request_only(tmp_path: Path) -> None:
    """A bridge may work there with a copy of this database; who asks for `purge` knows better."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(tmp_path, port, OLD, recorder)
        await publish_below(tmp_path, port, NEW, recorder, clear_old_base=False)
        await harness.publish(port, "oneweb/bridge/status", '{"state": "online"}', retain=True)
        async with bench(tmp_path, port) as made:
            made.base = NEW
            tree = TopicTree(NEW, "main", made.store.journal_id)

            async def announce(_: object) -> list[bool]:
                raise AssertionError

            assert await purge.clear_old_bases(made.settings, tree, made.rows, announce, is_requested=False) == 0
            assert len(await kept(port)) == 6
            async with made.publishing() as running:
                await recorder.until(lambda: running.connected_since is not None)
                assert await running.purge() == 6


async def test_check_looks_at_the_head_as_run_does(tmp_path: Path) -> None:
    """`check` fails where `run` would publish nothing, and passes where the head is the database's own."""
    port = mosquitto.free_port()
    async with mosquitto.run_mosquitto(port), harness.recording(port, "#") as recorder:
        await publish_below(tmp_path, port, OLD, recorder)
        for instance, path, is_good in (
            ("main", "bench.db", True),
            ("renamed", "bench.db", True),
            ("renamed", "nowhere.db", False),
            ("main", "nowhere.db", True),
        ):
            mqtt, state = f"{{host: 127.0.0.1, port: {port}}}", f"{{path: {tmp_path / path}}}"
            config = parse(f"{{instance: {instance}, mqtt: {mqtt}, state: {state}}}", {})
            good, sentence = await _check_broker(config, config.mqtt)
            assert good is is_good
            assert good or "belongs to the bridge instance 'main'" in sentence


@pytest.mark.parametrize(
    ("topic", "own"),
    [
        ("a/b/terminal/1/state", True),
        ("a/b/bridge/status", True),
        ("a/b/bridge/polling/sites/state", True),
        ("a/b/usage/1", True),
        ("a/b/bridge/polling/sites/set", False),
        ("a/b/bridge/polling/sites/interval/set", False),
        ("a/b/bridge", False),
        ("a/b/terminal", False),
        ("a/b", False),
        ("a/bc/terminal/1/state", False),
        ("a/b/other/1", False),
    ],
)
def test_only_the_bridges_own_kinds_of_topics_are_cleared(topic: str, own: bool) -> None:
    """Commands, and what no bridge publishes, are not the bridge's to clear."""
    assert TopicTree("a/b", "main", "j").may_own(topic) is own
