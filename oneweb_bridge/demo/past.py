"""The days before the demo: the demo's bridge polls them too, by simulated time, so that there is a past to look at.

What is polled is the simulated API at that time, by the same polling manager as later and into the same database.
The API keeps no history of the data that were used, so usage is polled day by day. It keeps samples of reports:
they are polled once, a day before the demo begins, and the bridge itself catches up with that day when it starts.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator

from msgspec.structs import replace

from oneweb_bridge import app, simulator
from oneweb_bridge.clock import SYSTEM, Clock
from oneweb_bridge.config.schema import Config
from oneweb_bridge.config.units import MAX_INTERVAL_S
from oneweb_bridge.polling.poller import Poller

DAY = 86_400.0
DAYS = 24
"""Days that are lived through: a bill cycle that is about two thirds over, and some days before it."""
MAX_TERMINALS = 100
"""With more terminals the past would take longer than anybody waits for a demo."""

DAILY = ("user_terminals", "usage_consumption")


async def live_through(config: Config, fake: simulator.Simulator) -> None:
    """Polls what the simulated API showed from `DAYS` days ago until now; `fake` begins then, and ends now.

    The bridge that opens the database afterwards finds what a machine that was switched off for a day leaves.
    """

    def now() -> float:
        return float(fake.time()["epoch"])

    reports = [call.id for call in config.polling.values() if call.reads == "report"]
    # With another boot of the machine the bridge does not wait with its first polls.
    clock = Clock(now, SYSTEM.elapsed, "before the demo")
    with _errors_only():
        async with app.open_bridge(_polled_on_request(config), clock) as parts, asyncio.TaskGroup() as group:
            polling = group.create_task(parts.poller.run(), name="poller")
            await _poll(parts.poller, config.polling.keys() - set(reports))
            for day in range(1, DAYS):
                fake.advance(DAY)
                await _poll(parts.poller, DAILY if day < DAYS - 1 else [*DAILY, *reports])
            fake.advance(max(0.0, SYSTEM.now() / 1000 - now()))
            await _poll(parts.poller, DAILY)
            polling.cancel()


@contextlib.contextmanager
def _errors_only() -> Iterator[None]:
    """The log keeps silent about what happened in the past; the alerts of those days are on their page."""
    log = logging.getLogger("oneweb_bridge")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _polled_on_request(config: Config) -> Config:
    """The same calls, polled when they are requested, and not by themselves but for one time at the start."""
    rate_limit = replace(config.api.rate_limit, min_interval=0.0)
    return replace(
        config,
        api=replace(config.api, rate_limit=rate_limit),
        polling={
            id: replace(call, interval=MAX_INTERVAL_S, enabled=call.reads != "report")
            for id, call in config.polling.items()
        },
    )


async def _poll(poller: Poller, calls: Iterable[str]) -> None:
    """Polls calls, and returns when all have ended."""
    await asyncio.gather(*[poller.request_poll(call)[0] for call in calls])
