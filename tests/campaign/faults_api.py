"""Faults of the API: its answers are errors, cut, nonsense, contradict themselves, are late, or have another date."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from functools import partial

from tests import rounds_api
from tests.campaign.fault import Fault
from tests.campaign.scene import Part, Setup, meanwhile
from tests.rounds_api import Faults

DELAYS: Faults = (("slow", {"rate": 900.0}), ("hang", {"seconds": 4.0}))
DATES: Faults = tuple(("date", {"seconds": by}) for by in (3600.0, -3600.0, 86_400.0, -86_400.0, 6.3e7, -6.3e7))
REPORTS = ("link_availability", "signal_quality", "resource_state", "traffic", "link_metrics")
SHORT_PAST = {
    call: {"window": {"keep": "1h"}} for call in (*(f"ut_{report}" for report in REPORTS), "product_throughput")
}
"""A first answer that seems to be years old has all made up for that the API keeps: the past of a simulated fleet has
twenty times as many samples as a real one."""
SHORT_PAUSES = {"api": {"rate_limit": {"max_pause": "15s"}}}
"""Three refusals in a row, the last without a time, ask for a pause of four minutes: longer than a round waits."""
SETUP = Setup(changes={"polling": rounds_api.PAGED})
PATHS = ("", "", "userTerminal", "product", "geographicSite", "performanceMonitoring")


@contextlib.asynccontextmanager
async def troubled(part: Part, faults: Faults) -> AsyncIterator[None]:
    """A few answers at a time are wrong, while the fleet lives and every call is asked."""
    api = part.stage.api

    async def trouble() -> None:
        while True:
            kind, details = part.chance.choice(faults)
            api.fault(kind, count=part.chance.randint(1, 5), path=part.chance.choice(PATHS), **details)
            await part.pause(0.4, 1.5)
            api.advance(part.chance.uniform(0, 30))
            terminal = part.chance.choice(api.truth("terminals"))
            api.fleet("rename", id=terminal["id"], name=f"{kind} was here")

    part.scene.is_removal_excluded = True
    async with meanwhile(trouble()):
        yield


@contextlib.asynccontextmanager
async def cut(part: Part) -> AsyncIterator[None]:
    """Bodies end at any byte: with their length said, in chunks, or with the end of the connection; or are short."""
    api = part.stage.api

    async def cut_again() -> None:
        while True:
            at = int(10 ** part.chance.uniform(0, 3.7))
            length = part.chance.choice(("content", "chunked", "none", "short"))
            if length == "short":
                api.fault("truncated", count=1, bytes=at)
            else:
                api.fault("cut", count=1, bytes=at, length=length)
            api.fleet("rename", id=part.chance.choice(api.truth("terminals"))["id"], name=f"cut at {at}")
            await part.pause(0.1, 0.4)

    part.scene.is_removal_excluded = True
    async with meanwhile(cut_again()):
        yield


@contextlib.asynccontextmanager
async def failing(part: Part, statuses: Sequence[int]) -> AsyncIterator[None]:
    """Every answer is the same error; alone, the health of the bridge says so, and says when it is over."""
    status = part.chance.choice(statuses)
    part.scene.is_removal_excluded = True
    part.stage.api.fault("status", status=status)
    yield
    if part.scene.is_alone:
        await (_expect_unauthorized(part) if status in (401, 403) else _expect_unreachable(part))
    part.stage.api.clear_faults()


async def _expect_unreachable(part: Part) -> None:
    await part.stage.until_ready("api", is_well=False)
    info, known = "oneweb/bridge/info", part.stage.recorder.retained
    is_told = await part.stage.until(lambda: known.get(info, {}).get("api", {}).get("state") == "unreachable", 25.0)
    part.expect(is_told, f"{info} does not say that the API is unreachable")
    part.scene.checks.append(partial(part.stage.until_ready, "api", is_well=True))


async def _expect_unauthorized(part: Part) -> None:
    states = part.stage.recorder.retained

    def is_told() -> bool:
        calls = [state for topic, state in states.items() if topic.startswith("oneweb/bridge/polling/")]
        return any(state.get("status") == "unauthorized" for state in calls)

    part.expect(await part.stage.until(is_told, 25.0), "no call says that it is unauthorized")


def _fault(name: str, about: str, faults: Faults) -> Fault:
    return Fault(name=name, actor="API", about=about, hold=partial(troubled, faults=faults), setup=SETUP)


FAULTS: Sequence[Fault] = (
    _fault("api status", "status codes 400 to 504", rounds_api.STATUS),
    Fault(
        name="api down",
        actor="API",
        about="5xx for every request",
        hold=partial(failing, statuses=(500, 502, 503, 504)),
        setup=SETUP,
    ),
    Fault(
        name="api unauthorized",
        actor="API",
        about="401 or 403 for every request",
        hold=partial(failing, statuses=(401, 403)),
        setup=SETUP,
    ),
    _fault("api nonsense", "HTML, null, NaN, depth, redirects, values of another type", rounds_api.NONSENSE),
    _fault("api lies", "pages repeated, missing, half empty", rounds_api.LIES),
    Fault(
        name="api limits",
        actor="API",
        about="429 with nonsense in Retry-After",
        hold=partial(troubled, faults=rounds_api.LIMITS),
        setup=SETUP.joined(Setup(changes=SHORT_PAUSES)),
    ),
    _fault("api floods", "bombs, huge bodies, trickles, silence", rounds_api.FLOODS),
    _fault("api delays", "answers that come late", DELAYS),
    Fault(
        name="api date",
        actor="API",
        about="a Date header that is hours, a day or years off",
        hold=partial(troubled, faults=DATES),
        setup=SETUP.joined(Setup(changes={"polling": SHORT_PAST})),
    ),
    Fault(name="api cut", actor="API", about="bodies cut at any byte", hold=cut, setup=SETUP),
)
