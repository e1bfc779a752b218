"""The assembly: build everything, run it in one group of tasks, stop cleanly.

Stopping needs no cleanup: unpublished rows are in the journal, so the bridge publishes `offline`, closes its
connections and exits.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from oneweb_bridge import CONTRACT, __version__, systemd
from oneweb_bridge.api.client import ApiClient, open_api
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.commands.decode import time_range
from oneweb_bridge.commands.executor import BrokerRequests, Executor
from oneweb_bridge.commands.inbox import Inbox
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.schema import Config
from oneweb_bridge.encoding import rfc3339
from oneweb_bridge.files import refusal_of
from oneweb_bridge.homeassistant.announcer import Announcer
from oneweb_bridge.model.command import CommandMessage
from oneweb_bridge.model.records import Alert, Message
from oneweb_bridge.model.status import Cost, Info, JournalState, Response, Result, ServerInUse
from oneweb_bridge.mqtt.context import PublisherCallbacks
from oneweb_bridge.mqtt.publisher import Publisher
from oneweb_bridge.mqtt.topics import TopicTree
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.polling.poller import Poller
from oneweb_bridge.store import announcements, housekeeping, journal, query_thread, store
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.store.places import Place, place_of
from oneweb_bridge.store.server import Holding
from oneweb_bridge.trends.forecaster import Forecaster
from oneweb_bridge.trends.replay import ReplayQuery, read_pages
from oneweb_bridge.trends.task import Clocks, Folder, open_folder, trends_place_of
from oneweb_bridge.web import assembly, health
from oneweb_bridge.web.access import address_of, rules_of
from oneweb_bridge.web.command_routes import CommandQueue
from oneweb_bridge.web.console import Console
from oneweb_bridge.web.data import Sources
from oneweb_bridge.web.server import serve_http

if TYPE_CHECKING:
    from oneweb_bridge.sparkplug.outlet import Outlet

_log = logging.getLogger("oneweb_bridge.app")
OUTPUT = "mqtt"
Reloads = asyncio.Queue[Config]
"""Where new configurations come from."""


class BridgeParts(msgspec.Struct):
    """What a running bridge is made of. `config` is replaced when it is read again."""

    config: Config
    place: Place
    worker: str
    store: store.Store
    api: ApiClient
    poller: Poller
    forecaster: Forecaster
    tree: TopicTree
    started_at: str
    server: ServerInUse | None = None
    """The broker in use; None with a single one."""


@contextlib.asynccontextmanager
async def open_bridge(
    config: Config, clock: Clock = SYSTEM, masks: Masks | None = None, *, holding: Holding | None = None
) -> AsyncIterator[BridgeParts]:
    """Store, API, poller and topics; everything but the outputs; with `state.url` under a lease. Raises StoreError."""
    place = place_of(config) if holding is None else holding.server
    async with (
        store.open_store(place, clock) as opened,
        open_api(config.api, masks, clock) as connection,
    ):
        await _make_views(opened, config)
        forecaster = Forecaster(opened, config.forecast, clock)
        runner = PollRunner(opened, connection, config, clock, forecaster.update)
        poller = Poller(runner, opened, connection, config, clock)
        await poller.load()
        tree = TopicTree(config.mqtt.base_topic, config.instance, opened.journal_id, opened.earlier)
        tree.epoch = None if holding is None else holding.epoch
        worker = "" if holding is None else holding.worker
        yield BridgeParts(config, place, worker, opened, connection, poller, forecaster, tree, rfc3339(clock.now()))


async def _make_views(opened: store.Store, config: Config) -> None:
    """Makes the views for people; the bridge itself needs none, so a failure is logged."""
    try:
        await opened.make_views(config.polling)
    except StoreUnavailable as error:
        _log.error("the views for SQL could not be made (%s); the next start tries again", error)


async def run(
    config: Config,
    *,
    clock: Clock = SYSTEM,
    on_sent: Callable[[Message], None] = lambda _: None,
    reloads: Reloads | None = None,
    masks: Masks | None = None,
    holding: Holding | None = None,
    on_console: Callable[[str], None] = lambda _: None,
    keep_watchdog: Callable[[Callable[[], bool]], Coroutine[Any, Any, None]] = systemd.keep_watchdog,
) -> None:
    """Runs the bridge until it is cancelled. `reloads` brings new configurations; `masks` gets the API's secrets.

    `on_console` hears the address of the console as soon as it answers there. `keep_watchdog` tells the supervisor
    whether the bridge is alive, and never returns.
    """
    inbox = Inbox()
    async with (
        open_bridge(config, clock, masks, holding=holding) as parts,
        journal.open_journal(parts.place, OUTPUT, clock=clock) as rows,
        announcements.open_devices(parts.place, parts.store.steady.now) as devices,
        open_trends_folder(parts) as folder,
        query_thread.open_query_thread(parts.place) as queries,
        _open_sparkplug(parts, inbox, clock) as outlet,
    ):
        info = partial(_info, parts, rows)
        announcer = Announcer(devices, parts.tree, config)
        callbacks = _publisher_callbacks(parts, inbox, announcer, info, on_sent=on_sent, clock=clock)
        publisher = Publisher(config.mqtt, parts.tree, rows, parts.store.growth, callbacks)
        epochs = dict if holding is None else holding.epochs
        health_watch = health.Health(parts.poller, lambda: publisher.connected_since is not None, info, epochs)
        console = Console(rules_of(config), clock, __version__, config.instance)
        sources = _console_sources(parts, queries, health_watch, info, clock)
        live = assembly.add_reading(console, sources, parts.store.growth)
        executor = Executor(
            inbox,
            parts.poller,
            parts.store,
            _requests(publisher, announcer, parts.place, trends_place_of(config, parts.place)),
            clock,
            base=parts.tree.base,
            is_mqtt5=config.mqtt.protocol == "5",
            answer_to=publisher.answer_to,
            on_answer=partial(assembly.tell_answer, live),
        )
        assembly.add_commands(console, _command_queue(inbox, executor, publisher))
        async with _serve_http(health_watch, console, config, on_console), asyncio.TaskGroup() as group:
            group.create_task(parts.poller.run(), name="poller")
            group.create_task(publisher.run(), name="publisher")
            group.create_task(executor.run(), name="commands")
            group.create_task(announcer.run(publisher), name="discovery")
            group.create_task(folder.run(), name="trends")
            group.create_task(keep_house(parts, partial(_outputs, outlet), folder.fold_through), name="housekeeping")
            if outlet is not None:
                group.create_task(outlet.run(), name="sparkplug")
            group.create_task(live.run(), name="live")
            group.create_task(keep_watchdog(health_watch.alive), name="watchdog")
            if reloads is not None:
                group.create_task(_reload_loop(parts, publisher, announcer, console, reloads), name="configuration")


def _console_sources(
    parts: BridgeParts,
    queries: query_thread.QueryThread,
    watch: health.Health,
    info: Callable[[], Awaitable[Info]],
    clock: Clock,
) -> Sources:
    return Sources(
        queries=queries,
        poller=parts.poller,
        tree=parts.tree,
        health=watch,
        info=info,
        config=lambda: parts.config,
        clock=clock,
        steady=parts.store.steady,
        place=parts.place,
        trends=trends_place_of(parts.config, parts.place),
        time_range=time_range,
        openapi=lambda: _openapi_document(parts),
    )


def _openapi_document(parts: BridgeParts) -> Mapping[str, Any]:
    from oneweb_bridge.contract import openapi  # noqa: PLC0415 -- its schemas take memory, and few ask for them

    return openapi.document(parts.config, __version__)


def _publisher_callbacks(
    parts: BridgeParts,
    inbox: Inbox,
    announcer: Announcer,
    info: Callable[[], Awaitable[Info]],
    *,
    on_sent: Callable[[Message], None],
    clock: Clock,
) -> PublisherCallbacks:
    return PublisherCallbacks(
        on_command=inbox.put,
        info=info,
        alert=partial(_alert, parts),
        on_sent=on_sent,
        on_birth=announcer.on_birth,
        on_lost=announcer.on_broker_state_lost,
        on_connected=partial(_note_server, parts, clock),
        discovery_prefix=lambda: parts.config.homeassistant.discovery_prefix,
    )


def _note_server(parts: BridgeParts, clock: Clock, server: str) -> None:
    parts.server = ServerInUse(server, rfc3339(clock.now())) if parts.config.mqtt.servers else None


def _command_queue(inbox: Inbox, executor: Executor, publisher: Publisher) -> CommandQueue:
    return CommandQueue(
        base=publisher.tree.base,
        refusal_of=executor.refusal_of,
        has_room=inbox.has_room,
        put=inbox.put,
        answer_to=publisher.answer_to,
    )


def _requests(publisher: Publisher, announcer: Announcer, database: Place, trends: Place) -> BrokerRequests:
    async def replay(query: ReplayQuery) -> int:
        async with contextlib.aclosing(read_pages(database, trends, query)) as pages:
            return await publisher.replay(pages)

    return BrokerRequests(
        republish=publisher.republish,
        republish_discovery=announcer.republish_all,
        replay=replay,
        purge=publisher.purge,
    )


@contextlib.asynccontextmanager
async def _serve_http(
    watch: health.Health, console: Console, config: Config, on_console: Callable[[str], None]
) -> AsyncIterator[None]:
    """Serves HTTP. Where its port cannot be used, the bridge logs that and goes on without it."""
    host, port = config.http.address()
    async with contextlib.AsyncExitStack() as stack:
        try:
            console.port = await stack.enter_async_context(serve_http(watch, (host, port), console))
        except OSError as error:
            _log.error(
                "http.listen: %s:%s cannot be used (%s): end what uses it or choose another port, and restart; "
                "until then there is neither health endpoint nor console",
                host,
                port,
                refusal_of(error),
            )
        else:
            console.reconfigure(config)
            if console.gate.rules.off is None:
                on_console(address_of(config, console.port))
        yield


async def _reload_loop(
    parts: BridgeParts, publisher: Publisher, announcer: Announcer, console: Console, reloads: Reloads
) -> None:
    """Applies each new configuration: intervals, credentials, limits. Settings that commands stored stay above it."""
    while True:
        config = keep_identity(await reloads.get(), parts.config)
        new_api_settings = config.api != parts.config.api
        new_prefix = config.homeassistant.discovery_prefix != parts.config.homeassistant.discovery_prefix
        parts.config = config
        parts.api.reconfigure(config.api)
        parts.forecaster.reconfigure(config.forecast)
        await parts.poller.reconfigure(config)
        await _make_views(parts.store, config)
        publisher.reconfigure(config.mqtt, reconnect=new_prefix)
        announcer.reconfigure(config)
        console.reconfigure(config)
        if new_api_settings:
            parts.poller.sign_in_again()
        _log.info("the configuration was read again")


def _identity(config: Config) -> tuple[object, ...]:
    """The keys that need a restart."""
    state = config.state
    place = state.path, state.url, state.lease, state.worker
    topics = config.mqtt.base_topic, config.mqtt.protocol
    return config.instance, place, config.trends.path, topics, config.http, config.sparkplug


def keep_identity(config: Config, running: Config) -> Config:
    """The new configuration with the keys that need a restart as the bridge was started with them.

    Logs where it has others.
    """
    if _identity(config) == _identity(running):
        return config
    _log.warning(
        "instance, state (path, url, lease, worker), trends.path, mqtt.base_topic, mqtt.protocol, http.listen and "
        "sparkplug take effect with a restart only"
    )
    return replace(
        config,
        instance=running.instance,
        state=replace(
            config.state,
            path=running.state.path,
            url=running.state.url,
            lease=running.state.lease,
            worker=running.state.worker,
        ),
        trends=replace(config.trends, path=running.trends.path),
        mqtt=replace(config.mqtt, base_topic=running.mqtt.base_topic, protocol=running.mqtt.protocol),
        http=running.http,
        sparkplug=running.sparkplug,
    )


def open_trends_folder(parts: BridgeParts) -> contextlib.AbstractAsyncContextManager[Folder]:
    """The task that folds samples into the trends, by the API's clock. Raises StoreError."""
    return open_folder(
        lambda: parts.config, parts.place, parts.poller.alert, Clocks(parts.api.now, parts.store.steady.now)
    )


@contextlib.asynccontextmanager
async def _open_sparkplug(parts: BridgeParts, inbox: Inbox, clock: Clock) -> AsyncIterator["Outlet | None"]:
    """The Sparkplug outlet; None where it is not enabled. Raises StoreError."""
    if not parts.config.sparkplug.enabled:
        yield None
        return
    # Its library is installed only where it is used.
    from oneweb_bridge.sparkplug.outlet import open_outlet  # noqa: PLC0415
    from oneweb_bridge.sparkplug.shared import EdgeCallbacks  # noqa: PLC0415

    callbacks = EdgeCallbacks(
        config=lambda: parts.config,
        alert=partial(_alert, parts),
        submit=partial(_submit, parts.tree.base, inbox),
        is_api_connected=lambda: parts.poller.api_state.state == "ok",
        poll_successes=lambda: {call: runtime.progress.succeeded for call, runtime in parts.poller.calls.items()},
    )
    async with open_outlet(parts.place, parts.store.growth, callbacks, clock, __version__) as outlet:
        yield outlet


def _submit(base: str, inbox: Inbox, address: str, payload: bytes, on_result: Callable[[Result], None]) -> str | None:
    """Queues a command of Sparkplug, as if it had come on the topic of a call. Returns why it could not."""

    def answer(result: Result | Response) -> None:
        if isinstance(result, Result):
            on_result(result)

    message = CommandMessage(f"{base}/bridge/polling/{address}", payload, False, answer, source="sparkplug")
    if not inbox.has_room(message):
        return "too many commands wait: try again"
    inbox.put(message)
    return None


def _outputs(outlet: "Outlet | None") -> tuple[str, ...]:
    """The readers of the journal for which rows are kept."""
    return (OUTPUT,) if outlet is None else (OUTPUT, *outlet.outputs())


async def keep_house(parts: BridgeParts, outputs: Callable[[], tuple[str, ...]], fold: housekeeping.Fold) -> None:
    await housekeeping.housekeeping_loop(
        parts.place,
        lambda: parts.config.state,
        outputs,
        parts.poller.alert,
        now=parts.store.steady.now,
        classes=parts.tree.classes,
        fold=fold,
    )


async def _alert(parts: BridgeParts, kind: str, message: str) -> None:
    _log.error("%s", message)
    await parts.poller.alert(Alert(kind=kind, message=message))


async def _info(parts: BridgeParts, rows: journal.Journal) -> Info:
    """The payload of `bridge/info`: version, the API, the journal, and requests per hour of each call."""
    head, published = await rows.head(), await rows.cursor()
    backlog = head - published + await rows.waiting()
    dropped, set_aside = await rows.counts()
    poller, costs = parts.poller, parts.poller.whole_costs()
    return Info(
        version=__version__,
        contract=CONTRACT,
        instance=parts.config.instance,
        started_at=parts.started_at,
        api=poller.api_state,
        journal=JournalState(
            head, published, backlog, dropped, set_aside, await rows.owed.count(), parts.store.write_error
        ),
        calls={
            call: Cost(round(runtime.interval), round(runtime.effective), costs[call])
            for call, runtime in poller.calls.items()
        },
        broker=parts.server,
        epoch=parts.tree.epoch,
        worker=parts.worker or None,
    )
