"""Puts the console together: its routes, its live stream, and what it asks of the rest of the bridge."""

from oneweb_bridge.model.status import Response, Result
from oneweb_bridge.mqtt.topics import CommandTopic
from oneweb_bridge.store.growth import JournalGrowth
from oneweb_bridge.web.command_routes import CommandQueue, CommandRoutes
from oneweb_bridge.web.console import Console
from oneweb_bridge.web.data import DataRoutes, Sources
from oneweb_bridge.web.live import LiveStream
from oneweb_bridge.web.payloads import CallResult, RequestResult
from oneweb_bridge.web.series_routes import SeriesRoutes
from oneweb_bridge.web.streaming import LiveRoute


def add_reading(console: Console, sources: Sources, growth: JournalGrowth) -> LiveStream:
    """Adds the routes that give data. Returns the live stream, which is still to be run."""
    data = DataRoutes(sources)
    live = LiveStream(sources.queries, sources.tree, growth, data.bridge)
    series = SeriesRoutes(sources, console.headers)
    console.add(
        *data.routes(), *series.routes(), *LiveRoute(live, console.headers, console.is_still_signed_in).routes()
    )
    return live


def add_commands(console: Console, queue: CommandQueue) -> None:
    """Adds the routes that change something."""
    console.add(*CommandRoutes(queue).routes())


def tell_answer(live: LiveStream, topic: CommandTopic, answer: Result | Response) -> None:
    """Gives the answer to a command, whoever sent it, to the listeners of the live stream."""
    if isinstance(answer, Result):
        live.tell("result", CallResult(topic.name, answer))
    else:
        live.tell("result", RequestResult(topic.name, answer))
