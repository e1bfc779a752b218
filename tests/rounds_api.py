"""Rounds in which the API fails, lies, or floods, while the fleet changes. Nothing may be removed or invented."""

from pathlib import Path
from typing import Any

from tests.fault_bench import RoundResult, set_up

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
