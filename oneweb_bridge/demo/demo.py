"""`oneweb-bridge demo`: a simulated fleet, a broker of its own and the bridge, without any configuration."""

import asyncio
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from oneweb_bridge import app, simulator
from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.config.read import parse
from oneweb_bridge.config.schema import Config, Http, Secret
from oneweb_bridge.config.units import interval_text
from oneweb_bridge.decode.catalogue import CALLS, Call
from oneweb_bridge.demo import console, mosquitto, past
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.model.records import Message
from oneweb_bridge.store import journal

INTERVALS = {
    "user_terminals": 10.0,
    "user_terminal_components": 20.0,
    "products": 30.0,
    "organizations": 30.0,
    "sites": 10.0,
    "ut_link_availability": 20.0,
    "ut_signal_quality": 12.0,
    "ut_resource_state": 15.0,
    "ut_traffic": 12.0,
    "ut_link_metrics": 20.0,
    "product_throughput": 20.0,
    "usage_consumption": 15.0,
}
"""Seconds between polls, so that something happens while one looks."""
USUAL_INTERVAL = 20.0
"""Seconds between polls of a call that has no interval of its own above."""

PERIOD, LATENESS = 0.05, 0.01
"""How much shorter than OneWeb's the simulated reports' periods and delays are."""
CYCLE_DAYS = 20
"""How long ago the bill cycle began: long enough for a forecast that says something, whatever day it is."""
USAGE = "office,steady,vessel,bursty,growth"
DENSE_MS = 600_000
"""Since when, before the demo begins, reports come that quickly, so that the newest values are not old."""
HIDDEN_SITES, HIDDEN_S = 6, 600.0
"""Sites that vanish from the listing at once, so that their removal is held, and for how long."""


async def run(terminals: int, speed: float) -> None:
    """Shows a living fleet being published, until it is cancelled."""
    has_past = terminals <= past.MAX_TERMINALS
    options = simulator_options(terminals, speed, past.DAYS if has_past else 0)
    with tempfile.TemporaryDirectory(prefix="oneweb-bridge-demo-") as directory:
        async with simulator.serve(options) as fake:
            if has_past:
                await past.live_through(configuration(fake.url, 0, Path(directory)), fake)
            # Ports that are free now, and not only before the past.
            port = mosquitto.free_port()
            config = configuration(fake.url, port, Path(directory))
            try:
                async with mosquitto.run_mosquitto(port), asyncio.TaskGroup() as group:
                    group.create_task(_change_fleet_loop(fake), name="story")
                    group.create_task(_hide_sites_loop(fake), name="hidden sites")
                    where = partial(_say_where, terminals, config)
                    await app.run(config, on_sent=console.ThrottledPrinter().write, on_console=where)
            except mosquitto.NoBroker as error:
                print(f"{error}. Without a broker, this is what would be published:", file=sys.stderr)
                await run_without_broker(config, lambda message: print(console.json_line(message), flush=True))


async def run_without_broker(config: Config, write: Callable[[Message], None]) -> None:
    """Polls as `app.run` does, and gives each message that would be published to `write`. Never returns."""
    async with (
        app.open_bridge(config) as parts,
        journal.open_journal(parts.place, console.OUTPUT) as rows,
        app.open_trends_folder(parts) as folder,
        asyncio.TaskGroup() as group,
    ):
        group.create_task(parts.poller.run(), name="poller")
        group.create_task(console.drain(rows, parts.tree, parts.store.growth, write), name="console")
        group.create_task(folder.run(), name="trends")
        group.create_task(app.keep_house(parts, lambda: (console.OUTPUT,), folder.fold_through), name="housekeeping")


async def _change_fleet_loop(fake: simulator.Simulator) -> None:
    """What a fleet does in a day, in minutes: a terminal leaves and comes back, firmware, late news, a bad record."""
    while terminals := fake.truth("terminals"):
        leaver, other = terminals[1 % len(terminals)]["id"], terminals[-1]["id"]
        await asyncio.sleep(15.0)
        fake.fleet("remove", id=leaver)
        await asyncio.sleep(10.0)
        fake.fleet("firmware", id=other)
        fake.fleet("suspend", id=fake.truth("products")[0]["id"])
        fake.fleet("rename_site", id=fake.truth("sites")[0]["id"], name="Renamed in the demo")
        fake.fault("corrected", report="traffic", id=other)
        await asyncio.sleep(10.0)
        fake.fault("missing_key", path="organization", key="id", share=0.1, count=1)
        await asyncio.sleep(40.0)
        fake.fleet("restore", id=leaver)
        fake.fleet("set_status", id=fake.truth("products")[0]["id"], status="active")
        await asyncio.sleep(15.0)


async def _hide_sites_loop(fake: simulator.Simulator) -> None:
    """Many sites are missing at once for some minutes, as when an account has lost a right."""
    while True:
        await asyncio.sleep(5.0)
        sites = hide_sites(fake)
        await asyncio.sleep(HIDDEN_S)
        for site in sites:
            fake.fleet("restore", id=site)
        await asyncio.sleep(HIDDEN_S / 2)


def hide_sites(fake: simulator.Simulator) -> list[str]:
    """Takes the last sites out of the listing. Returns their ids."""
    sites = [str(site["id"]) for site in fake.truth("sites")[-HIDDEN_SITES:]]
    for site in sites:
        fake.fleet("remove", id=site)
    return sites


def simulator_options(terminals: int, speed: float, days: int) -> simulator.Options:
    """A fleet whose story begins so many days ago; from now on its reports come quickly."""
    now = SYSTEM.now()
    return simulator.Options(
        terminals=terminals,
        speed=speed,
        seed=2,
        start=rfc3339(now - days * round(1000 * past.DAY)),
        report_period=PERIOD,
        report_period_from=rfc3339(now - DENSE_MS),
        lateness_scale=LATENESS,
        cycle_day=min(28, datetime.fromtimestamp(now / 1000 - CYCLE_DAYS * past.DAY, UTC).day),
        usage=USAGE,
    )


def configuration(api_url: str, port: int, directory: Path) -> Config:
    """The configuration of the demo: the defaults, but for addresses, credentials and quick polls."""
    config = parse("", {})
    api = msgspec.structs.replace(
        config.api,
        base_url=api_url,
        client_id=Secret("demo"),
        client_secret=Secret("demo-secret"),
        rate_limit=msgspec.structs.replace(config.api.rate_limit, min_interval=0.02),
    )
    return msgspec.structs.replace(
        config,
        api=api,
        mqtt=msgspec.structs.replace(config.mqtt, host="127.0.0.1", port=port),
        state=msgspec.structs.replace(config.state, path=str(directory / "demo.db")),
        polling={id: _quick(call) for id, call in config.polling.items()},
        removal=msgspec.structs.replace(config.removal, after_time=20.0),
        http=msgspec.structs.replace(config.http, listen=_listen_address()),
    )


def _listen_address() -> str:
    """The usual address of the console, or a free port where that is taken."""
    host, port = Http().address()
    with socket.socket() as probe:
        # As the server will: a port that has just been left is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            port = 0
    return f"{host}:{port}"


def _quick(call: Call) -> Call:
    return msgspec.structs.replace(
        call, enabled=True, interval=INTERVALS.get(call.id, USUAL_INTERVAL), lateness=CALLS[call.id].lateness * LATENESS
    )


def _say_where(terminals: int, config: Config, console_address: str) -> None:
    """Prints where everything is; the first line is the console's address, because that is where people look first."""
    port = config.mqtt.port
    is_elsewhere = config.http.address()[1] == 0
    taken = f"Another program uses {Http().listen}, so the console is on a free port.\n" if is_elsewhere else ""
    file = write_config_file(config, console_address)
    print(
        f"Console: {console_address}\n{taken}\n"
        f"{terminals} simulated terminals at {config.api.base_url}, broker on 127.0.0.1:{port}.\n"
        "Everything, in another terminal:\n\n"
        f"    mosquitto_sub -h 127.0.0.1 -p {port} -t 'oneweb/#' -v\n\n"
        "The other commands (`oneweb-bridge --help`) take the demo's configuration, as long as it runs:\n\n"
        f"    {_program()} status -c {file}\n\n"
        "● is retained, → is not. Ctrl-C ends it.\n",
        flush=True,
    )


def _program() -> str:
    """How this program is called in another terminal: by its name where that is in PATH, else by its path."""
    if shutil.which("oneweb-bridge"):
        return "oneweb-bridge"
    beside = Path(sys.executable).parent / "oneweb-bridge"
    return str(beside) if beside.exists() else f"{sys.executable} -m oneweb_bridge"


def write_config_file(config: Config, console_address: str) -> Path:
    """Writes the keys that the demo has changed, for the other commands, beside its database. Returns the file."""
    path = Path(config.state.path or "").parent / "bridge.yaml"
    listen = urlsplit(console_address).netloc
    calls = "".join(
        f"  {id}: {{enabled: true, interval: {call.interval:.0f}s}}\n" for id, call in config.polling.items()
    )
    path.write_text(
        f"# The configuration of the demo, which is deleted when it ends.\n"
        f"api: {{base_url: '{config.api.base_url}', client_id: demo, client_secret: demo-secret}}\n"
        f"mqtt: {{host: 127.0.0.1, port: {config.mqtt.port}}}\n"
        f"state: {{path: '{config.state.path}'}}\n"
        f"http: {{listen: '{listen}'}}\n"
        f"polling:\n{calls}",
        encoding="utf-8",
    )
    return path


async def run_for(seconds: float | None, terminals: int, speed: float) -> None:
    """The demo for so many seconds, which it then says, or until it is cancelled."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await run(terminals, speed)
    except TimeoutError:
        if seconds is not None and limit.expired():
            print(f"\nThe demo is over after {interval_text(seconds)} (--duration).", file=sys.stderr, flush=True)
