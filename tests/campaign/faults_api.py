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
UNAUTHORIZED: Faults = (("status", {"status": 401}), ("status", {"status": 403}))
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


def _fault(name: str, about: str, faults: Faults) -> Fault:
    return Fault(name=name, actor="API", about=about, hold=partial(troubled, faults=faults), setup=SETUP)


FAULTS: Sequence[Fault] = (
    _fault("api status", "status codes 400 to 504", rounds_api.STATUS),
    _fault("api unauthorized", "401 and 403", UNAUTHORIZED),
    _fault("api nonsense", "HTML, null, NaN, depth, redirects, values of another type", rounds_api.NONSENSE),
    _fault("api lies", "pages repeated, missing, half empty", rounds_api.LIES),
    _fault("api limits", "429 with nonsense in Retry-After", rounds_api.LIMITS),
    _fault("api floods", "bombs, huge bodies, trickles, silence", rounds_api.FLOODS),
    _fault("api delays", "answers that come late", DELAYS),
    _fault("api date", "a Date header that is hours, a day or years off", DATES),
    Fault(name="api cut", actor="API", about="bodies cut at any byte", hold=cut, setup=SETUP),
)
