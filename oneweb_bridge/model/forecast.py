"""The forecast of an allowance as it is published, as a struct; the AsyncAPI document is made of the same one. Pure.

A member that is None is left out. Without the status `ok` only ids, times, status, method and days_used are there, and
cycle_end, used_gb and entitlement_gb where they are known.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from oneweb_bridge.model.status import TIME

ForecastStatus = Literal["not_enough_data", "unlimited", "ok"]
Confidence = Literal["high", "medium", "low"]


def _text(about: str, example: str) -> Meta:
    return Meta(description=about, examples=[example])


def _time(about: str, example: str) -> Meta:
    return Meta(pattern=TIME, description=about, examples=[example], extra_json_schema={"format": "date-time"})


def _number(about: str, example: float, format_: str, unit: str) -> Meta:
    more: dict[str, Any] = {"format": format_} | ({"x-unit": unit} if unit else {})
    return Meta(ge=0, description=about, examples=[example], extra_json_schema=more)


def _gb(about: str, example: float) -> Meta:
    return _number(about, example, "double", "GB")


def _blocks(about: str, example: int) -> Meta:
    return _number(about, example, "int64", "block")


_POOL = "the pool whose figures these are; absent where the allowance is not shared"
_REACHED = "when the allowance is used up with a probability of {} %; absent when not before the end of the cycle"


class Forecast(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When the allowance of a usage bucket runs out, with a band: p10 to p90 holds the truth in four cases of five.

    Of a shared allowance the figures are those of the pool, the same on the topic of each member.
    """

    bucket_id: Annotated[str, _text("key", "1209417733-171000000")]
    product_id: Annotated[str, _text("the product of the bucket", "SC-410028087856")] | None = None
    shared_allowance_id: Annotated[str, _text(_POOL, "POOL-7001-02")] | None = None
    time: Annotated[str, _time("the newest effective date of the usage", "2026-11-23T09:09:30.000Z")]
    ts: Annotated[int, _number("the same in ms since the epoch", 1795424970000, "int64", "ms")]
    status: Annotated[
        ForecastStatus,
        Meta(
            description="not_enough_data before 3 full days, without a known allowance, or past the end of the cycle",
            examples=["ok"],
        ),
    ]
    confidence: (
        Annotated[Confidence, Meta(description="how narrow the band is, against the use at the end", examples=["high"])]
        | None
    ) = None
    method: Annotated[str, _text("how the forecast was made", "gamma-1")]
    days_used: Annotated[float, _number("full days that the forecast is made of", 22.0, "double", "d")]
    cycle_end: Annotated[str, _time("end of the bill cycle", "2026-12-01T00:00:00Z")] | None = None
    used_gb: Annotated[float, _gb("used in this cycle", 265.835)] | None = None
    entitlement_gb: Annotated[float, _gb("the allowance of the cycle", 300.0)] | None = None
    used_at_end_p10_gb: Annotated[float, _gb("used at the end of the cycle, low", 316.2)] | None = None
    used_at_end_p50_gb: Annotated[float, _gb("used at the end of the cycle, median", 341.7)] | None = None
    used_at_end_p90_gb: Annotated[float, _gb("used at the end of the cycle, high", 371.0)] | None = None
    exhausted_p10: Annotated[str, _time(_REACHED.format(10), "2026-11-25T00:00:00Z")] | None = None
    exhausted_p50: Annotated[str, _time(_REACHED.format(50), "2026-11-27T00:00:00Z")] | None = None
    exhausted_p90: Annotated[str, _time(_REACHED.format(90), "2026-11-29T00:00:00Z")] | None = None
    exhaustion_probability_pct: (
        Annotated[float, _number("that the allowance is used up in this cycle", 97.0, "double", "%")] | None
    ) = None
    overage_p10_blocks: Annotated[int, _blocks("overage blocks of the cycle, low", 1)] | None = None
    overage_p50_blocks: Annotated[int, _blocks("overage blocks of the cycle, median", 2)] | None = None
    overage_p90_blocks: Annotated[int, _blocks("overage blocks of the cycle, high", 3)] | None = None
    overage_price: Annotated[float, _number("price of one block, as configured", 90.0, "double", "")] | None = None
    overage_currency: Annotated[str, _text("currency of the price, as configured", "EUR")] | None = None
