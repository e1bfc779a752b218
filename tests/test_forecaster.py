"""Forecasts after each poll of usage: what is committed, when, what a restart and a removal leave, and alerts."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from oneweb_bridge.config.schema import ForecastSettings
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.polling.poll_runner import PollRunner
from oneweb_bridge.simulator import Simulator
from oneweb_bridge.store.errors import StoreUnavailable
from oneweb_bridge.trends.forecaster import Forecaster
from tests import polls
from tests.polls import Bench

HOUR, DAY = 3600, 86400
SETTINGS = ForecastSettings(overage_price=90.0, overage_currency="EUR")


def with_forecasts(b: Bench, settings: ForecastSettings = SETTINGS) -> Forecaster:
    """Lets the bench forecast after each poll of usage, as the bridge does."""
    forecaster = Forecaster(b.store, settings, b.clock)
    b.runner = PollRunner(b.store, b.api, polls.configured(b.sim.url, **b._changes), b.clock, forecaster.update)
    return forecaster


@contextlib.asynccontextmanager
async def bench(directory: Path, **options: Any) -> AsyncIterator[Bench]:
    async with polls.bench(directory, {"start": "2025-11-01T00:00:00Z", "terminals": 25, **options}) as b:
        with_forecasts(b)
        await b.poll("products", "usage_consumption")
        yield b


async def watch(b: Bench, days: float, every: float = 6 * HOUR) -> None:
    """Polls usage for some days."""
    for _ in range(round(days * DAY / every)):
        await b.later(every)
        await b.poll("usage_consumption")


async def forecasts(b: Bench) -> dict[str, Forecast]:
    """What is retained: the stored forecasts by bucket."""
    rows = await b.rows("SELECT id, doc FROM record WHERE kind = 'forecast' AND seq > 0")
    return {row[0]: msgspec.json.decode(row[1], type=Forecast) for row in rows}


async def published(b: Bench) -> list[dict[str, Any]]:
    """The forecasts that came since the last look."""
    return [each.body for each in await b.news() if each.what == "forecast"]


def usage(sim: Simulator) -> dict[str, dict[str, Any]]:
    """The buckets that the API shows, by id."""
    return {bucket["id"]: bucket for report in sim.truth("usage") for bucket in report["bucket"]}


async def test_every_bucket_has_a_forecast_from_the_first_poll_on(tmp_path: Path) -> None:
    """Before three full days there are no figures; what has no limit says so at once."""
    async with bench(tmp_path) as b:
        by_bucket = await forecasts(b)
        stored = {row[0]: json.loads(row[1]) for row in await b.rows("SELECT id, doc FROM record WHERE kind = 'usage'")}

        assert by_bucket.keys() == usage(b.sim).keys()
        for id, each in by_bucket.items():
            unlimited = stored[id]["remaining_unlimited"]
            assert each.status == ("unlimited" if unlimited else "not_enough_data")
            assert each.used_at_end_p50_gb is None
            assert each.time == stored[id]["time"]
            assert each.product_id == stored[id]["product_id"]


async def test_figures_come_with_the_third_full_day(tmp_path: Path) -> None:
    """From then on there is a band around what will be used, and the price of a block is beside it."""
    async with bench(tmp_path) as b:
        await watch(b, 2.75)
        assert {each.status for each in (await forecasts(b)).values()} == {"unlimited", "not_enough_data"}
        await watch(b, 0.5)
        by_bucket = {id: each for id, each in (await forecasts(b)).items() if each.status != "unlimited"}

    assert by_bucket
    for each in by_bucket.values():
        assert (each.status, each.days_used) == ("ok", 3.0)
        assert (each.cycle_end, each.overage_price, each.overage_currency) == ("2025-12-01T00:00:00Z", 90.0, "EUR")
        band = (each.used_gb, each.used_at_end_p10_gb, each.used_at_end_p50_gb, each.used_at_end_p90_gb)
        assert list(band) == sorted(band, key=lambda use: use or 0.0)


async def test_forecast_holds_against_what_comes(tmp_path: Path) -> None:
    """In the middle of a cycle most bands hold the use at its end, of every kind of use."""
    kinds = "office,steady,vessel,bursty,shift,growth,walk"
    async with bench(tmp_path, usage=kinds, terminals=100) as b:
        await watch(b, 15, 12 * HOUR)
        by_bucket = {id: each for id, each in (await forecasts(b)).items() if each.status == "ok"}
        b.sim.advance(15 * DAY - 15)
        used = {id: bucket["bucketCounter"][0]["value"]["amount"] for id, bucket in usage(b.sim).items()}
    bands = [(each.used_at_end_p10_gb or 0, used[id], each.used_at_end_p90_gb or 0) for id, each in by_bucket.items()]
    held = sum(low <= truth <= high for low, truth, high in bands)

    assert len(bands) > 40
    assert held > 0.6 * len(bands)


async def test_quiet_bucket_has_days_of_nothing(tmp_path: Path) -> None:
    """A bucket that shows the same for days is not published, but each of these days counts as 0."""
    async with bench(tmp_path) as b:
        await watch(b, 3)
        id = next(iter(sorted(i for i, s in (await forecasts(b)).items() if s.status != "unlimited")))
        frozen = usage(b.sim)[id]
        number = next(i for i in range(25) if b.sim.world.usage.bucket_id(i) == id)
        at = b.sim.world.clock.now()
        b.sim.world.usage.used = _stopping(b.sim.world.usage.used, number, at)  # type: ignore[method-assign]
        await b.later(60)
        await b.poll("usage_consumption")
        await b.news()
        await watch(b, 5)
        shown = [each for each in await b.news() if each.what == "usage" and each.name == id]
        days = json.loads((await b.rows("SELECT body FROM usage_days WHERE id = ?", id))[0][0])["days"]

    assert shown == []
    assert usage_of(frozen) > 0
    assert [amount for _, amount in days[-4:]] == [0.0] * 4


def _stopping(used: Any, number: int, at: float) -> Any:
    return lambda index, now: used(index, min(now, at) if index == number else now)


def usage_of(bucket: dict[str, Any]) -> float:
    return float(bucket["bucketCounter"][0]["value"]["amount"])


async def test_pool_is_forecast_as_one(tmp_path: Path) -> None:
    """The members of a pool have the same figures, those of the pool, each on its own topic."""
    async with bench(tmp_path) as b:
        await watch(b, 4)
        by_bucket = await forecasts(b)
        shared = {id: bucket["sharedAllowance"]["id"] for id, bucket in usage(b.sim).items() if bucket["isShared"]}
        pools = {
            pool: [by_bucket[id] for id, other in shared.items() if other == pool] for pool in set(shared.values())
        }
        left = {id: bucket["bucketBalance"][0]["remainingValue"]["amount"] for id, bucket in usage(b.sim).items()}

    assert max(len(members) for members in pools.values()) > 1
    for pool, members in pools.items():
        same = {msgspec.structs.replace(each, bucket_id="", product_id=None) for each in members}
        assert len(same) == 1
        (each,) = same
        assert each.shared_allowance_id == pool
        assert each.used_gb == pytest.approx(float(each.entitlement_gb or 0) - left[members[0].bucket_id], abs=0.01)
    assert all(by_bucket[id].shared_allowance_id is None for id in by_bucket.keys() - shared.keys())


async def test_restart_alone_publishes_nothing(tmp_path: Path) -> None:
    """After a restart the same reports give no forecast again, and days go on where they were."""
    options = {"start": "2025-11-01T00:00:00Z", "terminals": 25, "seed": 2, "speed": 0.0, "liveliness": 0.0}
    async with polls.fleet(**options) as simulator:
        async with polls.opened(tmp_path, simulator) as b:
            with_forecasts(b)
            await b.poll("products", "usage_consumption")
            await watch(b, 3.5)
            before = await forecasts(b)
        async with polls.opened(tmp_path, simulator) as b:
            with_forecasts(b)
            await b.news()
            await b.poll("usage_consumption")
            assert await published(b) == []
            await b.later(60)
            await b.poll("usage_consumption")
            assert await published(b) == []
            assert await forecasts(b) == before
            await watch(b, 0.5)
            assert {each.days_used for each in (await forecasts(b)).values()} == {4.0} | {
                each.days_used + 1 for each in before.values() if each.status == "unlimited"
            }


async def test_forecast_is_cleared_with_its_usage(tmp_path: Path) -> None:
    """A bucket that is missing from three listings is cleared on both topics by one row, and what was kept goes."""
    async with bench(tmp_path) as b:
        await watch(b, 1)
        id = next(iter(sorted(i for i, bucket in usage(b.sim).items() if not bucket["isShared"])))
        product = (await forecasts(b))[id].product_id
        number = next(i for i in range(25) if b.sim.world.usage.bucket_id(i) == id)
        b.sim.world.changes.removed.setdefault("usage", set()).add(number)
        b.sim.world.changes.revision += 1
        await b.news()
        await watch(b, 1.5)
        clears = [each for each in await b.news() if each.what == "clear"]

        assert [(each.entity, each.id, each.name, each.body) for each in clears] == [
            ("product", product, id, ["usage", "forecast"])
        ]
        assert id not in await forecasts(b)
        assert await b.rows("SELECT id FROM usage_days WHERE id = ?", id) == []


async def test_forecasts_that_are_switched_off_are_cleared(tmp_path: Path) -> None:
    """With the next poll of usage nothing of them is retained; the usage stays."""
    async with bench(tmp_path) as b:
        count = len(await forecasts(b))
        forecaster = with_forecasts(b)
        forecaster.reconfigure(ForecastSettings(enabled=False))
        await b.news()
        await watch(b, 0.25)
        news = await b.news()
        await watch(b, 0.25)

        assert [each.body for each in news if each.what == "clear"] == [["forecast"]] * count
        assert [each for each in await b.news() if each.what in ("clear", "forecast")] == []
        assert await forecasts(b) == {}


async def test_alert_is_in_the_journal_once_a_cycle(tmp_path: Path) -> None:
    """Each product and each pool whose allowance will not last has one alert, with the forecast that says so."""
    async with bench(tmp_path) as b:
        await b.news()
        await watch(b, 29)
        alerts = [each.body for each in await b.news() if each.what == "alert"]
        exhausted = {s.shared_allowance_id or s.product_id for s in (await forecasts(b)).values() if s.exhausted_p50}

    assert exhausted
    assert all((alert["kind"], alert["call"]) == ("allowance_exhausts", "usage_consumption") for alert in alerts)
    for subject in exhausted:
        about = [alert["message"] for alert in alerts if str(subject) in alert["message"]]
        assert "used up" in about[-1]
        assert sum("used up" in message for message in about) == 1 + sum("last until" in message for message in about)


async def test_new_cycle_takes_the_end_of_the_next_one(tmp_path: Path) -> None:
    """When a cycle starts the forecast is of the new one, with the days of the last one."""
    async with bench(tmp_path) as b:
        await watch(b, 30.25)
        by_bucket = [each for each in (await forecasts(b)).values() if each.status == "ok"]

    assert by_bucket
    assert {each.cycle_end for each in by_bucket} == {"2026-01-01T00:00:00Z"}
    assert {each.days_used for each in by_bucket} == {30.0}
    assert all((each.used_gb or 0.0) < 20.0 for each in by_bucket)


async def test_forecasts_go_on_after_a_disk_that_was_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full: the poll fails, and the next one forecasts as if nothing had been."""
    async with bench(tmp_path) as b:
        commit = b.store.commit

        async def full(batch: Any, *rest: Any) -> int:
            if batch.usage_days:
                raise StoreUnavailable("the disk is full")
            return await commit(batch, *rest)

        await b.later(3 * HOUR)
        monkeypatch.setattr(b.store, "commit", full)
        with pytest.raises(StoreUnavailable):
            await b.poll("usage_consumption")
        monkeypatch.undo()
        await watch(b, 3.25)

        assert {each.days_used for each in (await forecasts(b)).values()} == {3.0}
