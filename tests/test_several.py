"""Several bridges in one process: each with its own database, lock and client id, and none ends the others."""

import asyncio
import contextlib
import io
import json
import logging
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import yaml
from msgspec.structs import replace

from oneweb_bridge import app
from oneweb_bridge.cli import conflicts, logs, several
from oneweb_bridge.cli.loading import find_files, require_single_file
from oneweb_bridge.cli.repeats import CountingHandler
from oneweb_bridge.config.file_reader import ConfigError
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config
from oneweb_bridge.store import database
from oneweb_bridge.store.errors import StoreDamaged, StoreError
from tests import harness
from tests.cancelling import end_tasks


def files_of(world: harness.World, **second: Any) -> tuple[Path, Path]:
    """The files of two bridges in one folder, `north` and `south`."""
    folder = world.directory / "conf.d"
    folder.mkdir()
    paths = []
    for name in ("north", "south"):
        (world.directory / name).mkdir()
        own: dict[str, Any] = {
            "instance": name,
            "mqtt": {"base_topic": f"fleet-{name}"},
            "state": {"path": str(world.directory / name / "bridge.db")},
            "homeassistant": {"enabled": False},
        }
        made = world.config(**harness.merged(own, second if name == "south" else {}))
        paths.append(made.rename(folder / f"{name}.yaml"))
    return paths[0], paths[1]


@contextlib.asynccontextmanager
async def running(world: harness.World, *paths: Path) -> AsyncIterator[harness.Process]:
    """One process with the bridges of these files or folders."""
    more = [argument for path in paths[1:] for argument in ("-c", str(path))]
    process = await harness.launched(("oneweb_bridge",), paths[0], *more)
    process.log.touch()
    try:
        yield process
    finally:
        await process.kill()


def is_online(recorder: harness.Recorder, name: str) -> bool:
    """Whether a bridge is online and has published its terminals."""
    status = recorder.retained.get(f"fleet-{name}/bridge/status")
    return status == {"state": "online"} and any(
        topic.startswith(f"fleet-{name}/terminal/") and topic.endswith("/state") for topic in recorder.retained
    )


async def until_logged(process: harness.Process, true: Callable[[str], bool]) -> None:
    """Waits until the log is as wanted."""
    async with asyncio.timeout(20):
        while not true(process.text()):
            await asyncio.sleep(0.02)


async def test_bridges_of_a_folder_run_in_one_process(world: harness.World) -> None:
    """Both publish under names of their own, each line says whose it is, SIGHUP reaches both, SIGTERM stops both."""
    north, _ = files_of(world)
    async with (
        harness.recording(world.port, "fleet-north/#", "fleet-south/#") as recorder,
        running(world, north.parent) as process,
    ):
        await recorder.until(lambda: is_online(recorder, "north") and is_online(recorder, "south"))
        heads = [recorder.retained[f"fleet-{name}/bridge/info"]["instance"] for name in ("north", "south")]
        assert heads == ["north", "south"]
        process.signal(signal.SIGHUP)
        for name in ("north", "south"):
            line = f"[{name}] app: the configuration was read again"
            await until_logged(process, lambda text, line=line: line in text)  # type: ignore[misc]
        assert await process.stop() == 0
        await recorder.until(
            lambda: all(
                recorder.retained[f"fleet-{n}/bridge/status"] == {"state": "offline"} for n in ("north", "south")
            )
        )
        assert f"[south] publisher: broker 127.0.0.1:{world.port}: connected" in process.text()


async def test_bridge_that_cannot_run_does_not_end_the_others(world: harness.World) -> None:
    """One database is in use elsewhere: the other bridge goes on, the log says so, and the end is exit code 1."""
    north, south = files_of(world)
    with database.hold_lock(world.directory / "south" / "bridge.db"):
        async with (
            harness.recording(world.port, "fleet-north/#", "fleet-south/#") as recorder,
            running(world, north, south) as process,
        ):
            await recorder.until(lambda: is_online(recorder, "north"))
            await until_logged(process, lambda text: "[south] cli: this bridge has ended, the others go on" in text)
            assert "bridge.db is in use by another bridge" in process.text()
            assert not any(topic.startswith("fleet-south") for topic in recorder.topics())
            assert await process.stop() == 1


STOPS_LATE = """
import asyncio, sys, time
from oneweb_bridge import app
from oneweb_bridge.cli import several
from oneweb_bridge.cli.main import main
from oneweb_bridge.store.errors import StoreError

async def run(config, **_):
    if config.instance == "south":
        raise StoreError("in use")
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.to_thread(time.sleep, 60)

app.run = run
several.MAX_STOP_S = 0.5
raise SystemExit(main(sys.argv[1:]))
"""


async def test_stop_that_is_cut_short_says_that_a_bridge_had_ended(world: harness.World) -> None:
    """The end of a process that does not wait for what is still under way is exit code 1, too."""
    north, south = files_of(world)
    arguments = ("-c", STOPS_LATE, "run", "-c", str(north), "-c", str(south))
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"this bridge has ended, the others go on" not in await process.stderr.readline():
                pass
            process.terminate()
            _, errors = await process.communicate()
        assert b"stopped without waiting" in errors
        assert process.returncode == 1
    finally:
        if process.returncode is None:
            process.kill()


async def test_mistake_in_one_file_starts_nothing(world: harness.World) -> None:
    """Exit code 2 and one sentence that names the file, before any bridge has touched its database."""
    north, south = files_of(world)
    south.write_text(south.read_text().replace("base_topic", "base_topics"))
    code, _, error = await harness.command("run", "-c", str(north.parent))
    assert (code, error.count("\n")) == (2, 1)
    assert f"{south}: mqtt.base_topics: unknown key" in error
    south.write_text(yaml.safe_dump(yaml.safe_load(north.read_text()) | {"instance": "south"}))
    code, _, error = await harness.command("run", "-c", str(north), "-c", str(south))
    assert (code, error.count("\n")) == (2, 1)
    assert f"{north} and {south}: both use the file" in error
    south.write_text("instance: south\nmqtt: {base_topic: south}\nstate: {path: south.db}\n")
    code, _, error = await harness.command("run", "-c", str(north), "-c", str(south), ONEWEB_CLIENT_ID="")
    assert code == 2
    assert f"{south}: api.client_id is empty" in error
    assert not list(world.directory.glob("*/bridge.db"))


def config_of(text: str) -> Config:
    """A configuration whose instance is `b`, with a database and a base of its own, unless the text says otherwise."""
    tree = harness.merged(
        {"instance": "b", "state": {"path": "b.db"}, "mqtt": {"base_topic": "b"}}, yaml.safe_load(text) or {}
    )
    return parse(yaml.safe_dump(tree), {})


FIRST = "{instance: a, state: {path: a.db}, mqtt: {base_topic: a}}"


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ("", "", ""),
        ("", "state: {path: ./a.db}", "both use the file"),
        ("", "trends: {path: a.trends.db}", "both use the file"),
        ("", "instance: a", "both have the instance 'a', so the same MQTT client id"),
        ("", "mqtt: {base_topic: a}", "both publish to localhost:1883, below 'a'"),
        ("", "mqtt: {base_topic: a/north, host: 127.0.0.1}", "both publish to localhost:1883, below 'a' and 'a/north'"),
        ("", "mqtt: {base_topic: ab}", ""),
        ("", "mqtt: {base_topic: a, port: 1884}", ""),
        ("", "mqtt: {base_topic: a, port: 1884, servers: ['[::1]:1883']}", "both publish to localhost:1883"),
        ("sparkplug: {enabled: true}", "sparkplug: {enabled: true}", "both are the Sparkplug Edge Node OneWeb/"),
        ("sparkplug: {enabled: true}", "sparkplug: {enabled: true, edge_node_id: south}", ""),
    ],
)
def test_bridges_that_would_be_in_each_others_way_are_refused(first: str, second: str, sentence: str) -> None:
    """The same file, client id, topics or Edge Node on one broker: one sentence that names both files."""
    config = config_of(yaml.safe_dump(harness.merged(yaml.safe_load(FIRST), yaml.safe_load(first) or {})))
    conflict = conflicts.find_conflict({Path("a.yaml"): config, Path("b.yaml"): config_of(second)})
    assert (conflict is None) is (sentence == "")
    assert sentence == "" or str(conflict).startswith(f"a.yaml and b.yaml: {sentence}")


def test_folder_stands_for_its_files_by_name(tmp_path: Path) -> None:
    """*.yaml and *.yml in the order of their names, without hidden files; an empty folder is refused."""
    for name in ("b.yaml", "a.yml", ".hidden.yaml", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "c.yaml").mkdir()
    assert find_files([tmp_path, Path("more.yaml")]) == [tmp_path / "a.yml", tmp_path / "b.yaml", Path("more.yaml")]
    with pytest.raises(ConfigError, match="expected at least one file that ends in"):
        find_files([tmp_path / "c.yaml"])
    assert find_files(None) == []


@pytest.mark.parametrize("command", ["check", "status", "config", "backup", "asyncapi"])
async def test_other_commands_take_one_file(command: str, tmp_path: Path) -> None:
    """Given several files or a folder, each other command says in one sentence what it expects."""
    arguments = ["copy.db"] if command == "backup" else []
    code, out, error = await harness.command(command, "-c", "a.yaml", "-c", "b.yaml", *arguments)
    assert (code, out, error.count("\n")) == (2, "", 1)
    assert f"{command}: expected one configuration file, got 2 times -c" in error
    with pytest.raises(ConfigError, match=f"{command}: expected one configuration file, got the folder"):
        require_single_file(command, [tmp_path])
    assert require_single_file(command, None) is None


class FakeBridges:
    """Takes the place of `app.run`: a bridge runs until it is told to fail."""

    def __init__(self) -> None:
        self.starts: list[str] = []
        self.failures: dict[str, list[Exception]] = {}

    async def run(self, config: Config, **_: Any) -> NoReturn:
        """Fails with the next error of this instance, else runs for ever."""
        self.starts.append(config.instance)
        await asyncio.sleep(0)
        if errors := self.failures.get(config.instance):
            raise errors.pop(0)
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> FakeBridges:
    bridges = FakeBridges()
    monkeypatch.setattr("oneweb_bridge.app.run", bridges.run)
    monkeypatch.setattr(several, "FIRST_RESTART_S", 0.01)
    return bridges


def two() -> list[Config]:
    """The configurations of two bridges."""
    return [config_of(FIRST), config_of("")]


async def test_bridge_that_ended_is_started_again(fakes: FakeBridges, caplog: pytest.LogCaptureFixture) -> None:
    """After an error of the database, a damaged one and a bug, while the other goes on; then nothing is down."""
    fakes.failures["b"] = [StoreError("in use"), StoreDamaged("torn"), ZeroDivisionError()]
    instances = several.Instances(two(), Masks())
    task = asyncio.create_task(instances.run())
    async with asyncio.timeout(20):
        while fakes.starts.count("b") < 4:
            await asyncio.sleep(0.01)
    assert fakes.starts.count("a") == 1
    assert instances.down == set()
    assert "in use" in caplog.text
    assert "b.db is damaged" in caplog.text
    assert "this is a bug" in caplog.text
    await end_tasks(task)


async def test_process_ends_when_no_bridge_runs(fakes: FakeBridges) -> None:
    """When each has ended with an error the process ends, so that its supervisor sees it."""
    fakes.failures = {"a": [StoreError("no")] * 9, "b": [StoreError("no")] * 9}
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(several.Instances(two(), Masks()).run(), 20)
    assert caught.value.subgroup(several.NothingRuns) is not None


async def test_watchdog_is_of_all_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that stands still makes the process not alive; one that has ended does not count."""
    watchdog = several.SharedWatchdog()
    tasks = [asyncio.create_task(watchdog.join(lambda alive=alive: alive)) for alive in (True, False)]  # type: ignore[misc]
    begun: list[Callable[[], bool]] = []

    async def keep_watchdog(is_alive: Callable[[], bool]) -> None:
        begun.append(is_alive)

    monkeypatch.setattr("oneweb_bridge.systemd.keep_watchdog", keep_watchdog)
    await asyncio.wait_for(watchdog.run(), 10)
    assert not begun[0]()
    tasks[1].cancel()
    await asyncio.gather(tasks[1], return_exceptions=True)
    assert begun[0]()
    tasks[0].cancel()
    await asyncio.gather(tasks[0], return_exceptions=True)


def test_line_says_whose_it_is_and_repeats_are_counted_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """In text and JSON; an equal line of another bridge is no repeat; a single bridge's lines have nothing more."""
    stream = io.StringIO()
    handler = CountingHandler(stream)
    handler.addFilter(logs._add_instance)
    for instance, as_json in (("", False), ("north", False), ("south", False), ("north", True)):
        handler.setFormatter(logs._Formatter(Masks(), as_json=as_json))
        token = logs.INSTANCE.set(instance)
        record = logging.LogRecord("oneweb_bridge.app", logging.ERROR, "f", len(stream.getvalue()), "lost", None, None)
        handler.handle(record)
        logs.INSTANCE.reset(token)
    single, north, south, *rest = stream.getvalue().splitlines()
    assert single.endswith("error   app: lost")
    assert north.endswith("error   [north] app: lost")
    assert south.endswith("error   [south] app: lost")
    assert rest == []
    handler.close()
    assert json.loads(stream.getvalue().splitlines()[-1])["instance"] == "north"


def test_sighup_leaves_what_needs_a_restart() -> None:
    """The keys that docs/configuration.md names stay as the bridge was started with them; all others are taken over."""
    running_config = parse("", {})
    new = parse(
        """
instance: other
mqtt: {protocol: 3.1.1, base_topic: elsewhere, window: 7}
http: {listen: '0.0.0.0:8481'}
state: {path: other.db, lease: 3s, worker: b, max_backlog: 1d}
trends: {path: other.trends.db, keep: 1y}
sparkplug: {group_id: Other}
""",
        {},
    )
    kept = app.keep_identity(new, running_config)

    assert (kept.instance, kept.http, kept.sparkplug) == ("main", running_config.http, running_config.sparkplug)
    assert (kept.mqtt.base_topic, kept.mqtt.protocol, kept.mqtt.window) == ("oneweb", "5", 7)
    assert (kept.state, kept.trends) == (
        replace(running_config.state, max_backlog=86_400.0),
        replace(running_config.trends, keep=31_536_000.0),
    )
