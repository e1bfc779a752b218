"""Rounds in which the API fails, lies, or floods, while the fleet changes. Nothing may be removed or invented."""

import asyncio
from pathlib import Path
from typing import Any

from tests.fault_bench import RoundResult, Stage, set_up

Faults = tuple[tuple[str, dict[str, Any]], ...]
NONSENSE: Faults = (
    ("html", {}),
    ("empty_body", {}),
    ("null", {}),
    ("object", {}),
    ("empty_list", {}),
    ("nan", {}),
    ("deep", {"depth": 20_000}),
    ("not_utf8", {}),
    ("bom", {}),
    ("content_type", {"value": "text/plain"}),
    ("redirect", {"host": "127.0.0.2:9"}),
    ("number_imei", {"share": 1.0}),
    ("unknown_attributes", {"share": 1.0}),
)
LIES: Faults = (
    ("page_repeat", {}),
    ("page_missing", {}),
    ("total_changes", {}),
    ("missing_key", {"share": 0.5}),
    ("drop_items", {"share": 0.5}),
    ("drop_items", {"share": 1.0}),
)
STATUS: Faults = tuple(("status", {"status": status}) for status in (400, 404, 408, 500, 502, 503, 504))
LIMITS: Faults = tuple(
    ("status", {"status": 429, "headers": {"Retry-After": text}})
    for text in ("0", "2", "-5", "Tue, 15 Nov 1994 08:12:31 GMT")
)
FLOODS: Faults = (
    ("gzip_bomb", {"megabytes": 300.0}),
    ("big", {"megabytes": 30.0}),
    ("slow", {"rate": 400.0}),
    ("hang", {"seconds": 20.0}),
)
PAGED = {
    call: {"page": {"limit": 5}}
    for call in ("user_terminals", "products", "organizations", "sites", "ut_signal_quality")
}


async def _troubled(stage: Stage, faults: Faults, turns: int = 8) -> None:
    """Faults one after the other, while the fleet lives and every call is asked."""
    for _ in range(turns):
        kind, details = stage.chance.choice(faults)
        path = stage.chance.choice(("", "", "userTerminal", "product", "geographicSite", "performanceMonitoring"))
        stage.api.fault(kind, count=stage.chance.randint(1, 5), path=path, **details)
        await asyncio.sleep(stage.chance.uniform(0.4, 1.5))
        stage.api.advance(stage.chance.uniform(0, 30))
        stage.api.fleet("rename", id=stage.chance.choice(stage.api.truth("terminals"))["id"], name=f"{kind} was here")


async def misbehaves(directory: Path, seed: int, faults: Faults) -> RoundResult:
    """Answers of one sort are wrong again and again."""
    async with set_up(directory, seed) as stage:
        await stage.start(polling=PAGED)
        await stage.wait_until_at_rest()
        await _troubled(stage, faults)
        stage.mended()
        result = await stage.finish()
        removed = [topic for topic in stage.recorder.topics() if topic.endswith("/event/removed")]
        stage.expect(not removed, f"removed: {removed}")
        return result


async def cut(directory: Path, seed: int) -> RoundResult:
    """Bodies end at any byte: with their length said, in chunks, or with the end of the connection; or are short."""
    async with set_up(directory, seed) as stage:
        await stage.start(polling=PAGED)
        await stage.wait_until_at_rest()
        for _ in range(30):
            at = int(10 ** stage.chance.uniform(0, 3.7))
            length = stage.chance.choice(("content", "chunked", "none", "short"))
            if length == "short":
                stage.api.fault("truncated", count=1, bytes=at)
            else:
                stage.api.fault("cut", count=1, bytes=at, length=length)
            stage.api.fleet("rename", id=stage.chance.choice(stage.api.truth("terminals"))["id"], name=f"cut at {at}")
            await asyncio.sleep(stage.chance.uniform(0.1, 0.4))
        stage.mended()
        return await stage.finish()


async def down(directory: Path, seed: int) -> RoundResult:
    """The API is down for everybody; health and info say so, and afterwards everything is caught up."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        stage.api.fault("status", status=stage.chance.choice((500, 502, 503, 504)))
        await stage.until_ready("api", is_well=False)
        info = "oneweb/bridge/info"
        alert = await stage.until(
            lambda: stage.recorder.retained.get(info, {}).get("api", {}).get("state") == "unreachable", 25.0
        )
        stage.expect(alert, f"{info} does not say that the API is unreachable")
        stage.mended()
        result = await stage.finish()
        await stage.until_ready("api", is_well=True)
        return result


async def unauthorized(directory: Path, seed: int) -> RoundResult:
    """The API refuses the credentials for a while; that is told, nothing is removed, and a poll signs in again."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        stage.api.fault("status", status=stage.chance.choice((401, 403)))
        alert = await stage.until(
            lambda: any(
                state.get("status") == "unauthorized"
                for topic, state in stage.recorder.retained.items()
                if topic.startswith("oneweb/bridge/polling/")
            ),
            25.0,
        )
        stage.expect(alert, "no call says that it is unauthorized")
        stage.mended()
        return await stage.finish()
