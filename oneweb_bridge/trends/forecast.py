"""When an allowance runs out: daily amounts of use to a forecast with a band, in closed form. Pure.

The amounts of the days that are left are the product of a level, a factor of the weekday and chance. Level, variation
and its persistence from day to day are estimated from the past days, the later ones counting more. The sum over the
days that are left is taken to be gamma distributed with the mean and the variance that follow, where the variance has
a part for what few days leave open about the level, one for a level that drifts, and one for the days themselves.

Nothing is drawn by chance: the same past gives the same forecast, to the last bit. Sums are exact (`fsum`), because
`sum` rounds in another way from Python 3.12 on.

Sources: quantiles of the gamma distribution by E. B. Wilson and M. M. Hilferty, PNAS 17 (1931) 684; the normal quantile
is stretched as the first term of the expansion of Student's t does it (Abramowitz and Stegun 26.7.5).
"""

import math
from collections.abc import Iterator, Sequence
from statistics import NormalDist

import msgspec

from oneweb_bridge.encoding import rfc3339, short_time
from oneweb_bridge.model.forecast import Confidence, Forecast, ForecastStatus

METHOD = "gamma-1"
"""The name of this method, published with each forecast; another one gets another name."""
MAX_DAYS = 56
"""Full days that are looked at, earlier ones are of no use."""
MIN_DAYS = 3
MAX_AHEAD_DAYS = 400
"""An end that is further away is not that of a bill cycle."""
DAY_MS = 86_400_000

_HALF_LIFE_DAYS = 10.0
_WEEKDAY_WEIGHT = 3.0
_PRIOR_CV2, _PRIOR_DAYS = 0.15, 5.0
_MAX_RHO = 0.85
_ROUNDING = 1e-9
"""Deviations of equal days from their mean are below it: they say nothing of the next day."""
_DRIFT_PER_DAY = 0.0015
_Z = NormalDist()
_P90 = _Z.inv_cdf(0.9)

Amounts = Sequence[tuple[int, float]]
"""Full days, oldest first: the UTC day since the epoch, and what was used on it in GB."""


class Model(msgspec.Struct, frozen=True):
    """What the past days say: the level in GB a day, a factor for each weekday, and how sure both are.

    `days` is the effective number of days behind the level, `cv2` the squared coefficient of variation of a day,
    widened by what one day says about the next.
    """

    level: float
    factors: tuple[float, ...]
    days: float
    cv2: float


class Quantiles(msgspec.Struct, frozen=True):
    """A value that is too high with a probability of 10, 50 and 90 %."""

    p10: float
    p50: float
    p90: float


class Outlook(msgspec.Struct, frozen=True):
    """The rest of a cycle: use at its end in GB, when the limit is reached (ms, None: not before the end), how likely.

    The early date is `p10`: by then the limit is reached with a probability of 10 %.
    """

    used_at_end: Quantiles
    exhausted: tuple[int | None, int | None, int | None]
    probability_pct: float


def fit(amounts: Amounts) -> Model:
    """The model of at least one full day."""
    factors = _weekday_factors(amounts)
    last = amounts[-1][0]
    weights = [0.5 ** ((last - day) / _HALF_LIFE_DAYS) for day, _ in amounts]
    leveled = [amount / factors[_weekday(day)] for day, amount in amounts]
    total = math.fsum(weights)
    level = math.fsum(w * value for w, value in zip(weights, leveled, strict=True)) / total
    days = total**2 / math.fsum(w * w for w in weights)
    if level <= 0.0:
        return Model(0.0, factors, days, 0.0)
    ratios = [value / level for value in leveled]
    spread = math.fsum(w * (ratio - 1.0) ** 2 for w, ratio in zip(weights, ratios, strict=True)) / total
    cv2 = (days * spread + _PRIOR_DAYS * _PRIOR_CV2) / (days + _PRIOR_DAYS)
    rho = _autocorrelation([day for day, _ in amounts], ratios)
    return Model(level, factors, days, cv2 * (1.0 + rho) / (1.0 - rho))


def _weekday(day: int) -> int:
    return day % 7


def _weekday_factors(amounts: Amounts) -> tuple[float, ...]:
    """How much of an average day each weekday uses, shrunk towards 1 by three days that are average."""
    mean = math.fsum(amount for _, amount in amounts) / len(amounts)
    if mean <= 0.0:
        return (1.0,) * 7
    sums, counts = [_WEEKDAY_WEIGHT] * 7, [_WEEKDAY_WEIGHT] * 7
    for day, amount in amounts:
        sums[_weekday(day)] += amount / mean
        counts[_weekday(day)] += 1.0
    raw = [total / count for total, count in zip(sums, counts, strict=True)]
    return tuple(factor * 7.0 / math.fsum(raw) for factor in raw)


def _autocorrelation(days: Sequence[int], ratios: Sequence[float]) -> float:
    """How much of a day's deviation the next day keeps, from 0 to the largest that is believed."""
    deviations = [ratio - 1.0 for ratio in ratios]
    square = math.fsum(deviation * deviation for deviation in deviations)
    if square <= len(deviations) * _ROUNDING**2:
        return 0.0
    product = math.fsum(deviations[i] * deviations[i + 1] for i in range(len(days) - 1) if days[i + 1] == days[i] + 1)
    return min(max(product / square, 0.0), _MAX_RHO)


class _Sum(msgspec.Struct, frozen=True):
    """The sum over some days to come: of their factors, of the squares of these, and how many days."""

    factors: float = 0.0
    squares: float = 0.0
    days: float = 0.0

    def add(self, factor: float, part: float) -> "_Sum":
        """The same with a part of one more day."""
        return _Sum(self.factors + factor * part, self.squares + factor * factor * part, self.days + part)


class _Gamma(msgspec.Struct, frozen=True):
    """A gamma distribution by its mean and shape, and the effective days behind it."""

    mean: float
    shape: float
    days: float

    def quantile(self, z: float) -> float:
        """Wilson and Hilferty's, at a quantile of the normal distribution that is stretched for few days."""
        if self.shape == 0.0:
            return self.mean
        ninth = 1.0 / (9.0 * self.shape)
        return float(self.mean * max(0.0, 1.0 - ninth + _stretch(z, self.days) * math.sqrt(ninth)) ** 3)

    def exceeds(self, value: float) -> float:
        """The probability that a value is reached, the same way backwards."""
        if value <= 0.0 or self.shape == 0.0:
            return 1.0 if self.mean >= value else 0.0
        ninth = 1.0 / (9.0 * self.shape)
        stretched = ((value / self.mean) ** (1.0 / 3.0) - 1.0 + ninth) / math.sqrt(ninth)
        return 1.0 - _Z.cdf(_unstretch(stretched, self.days))


def _stretch(z: float, days: float) -> float:
    return z * (1.0 + (z * z + 1.0) / (4.0 * days))


def _unstretch(stretched: float, days: float) -> float:
    """The root of a cubic that rises everywhere, by Newton's steps from the outside."""
    z = stretched
    for _ in range(8):
        z -= (_stretch(z, days) - stretched) / (1.0 + (3.0 * z * z + 1.0) / (4.0 * days))
    return z


def _distribution(model: Model, ahead: _Sum) -> _Gamma:
    """What is used in the days that `ahead` sums up."""
    mean = model.level * ahead.factors
    relative = model.cv2 / model.days + _DRIFT_PER_DAY * ahead.days
    variance = model.level**2 * (ahead.factors**2 * relative + model.cv2 * ahead.squares)
    return _Gamma(mean, mean * mean / variance if variance > 0.0 else 0.0, model.days)


def _parts_of_days(begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """A span in ms cut at UTC midnights: the day, and begin and end of the part."""
    at = begin
    while at < end:
        day = at // DAY_MS
        until = min((day + 1) * DAY_MS, end)
        yield day, at, until
        at = until


def look_ahead(model: Model, used: float, limit: float, span: tuple[int, int]) -> Outlook:
    """The rest of a cycle in which `used` GB of `limit` are used at the begin of the span, which is in ms.

    The limit is not reached yet: what was reached is known, and nothing to forecast.
    """
    # The date that is early is that of a use that is high.
    dates: dict[float, int] = {}
    before: dict[float, float] = dict.fromkeys((_P90, 0.0, -_P90), used)
    ahead = _Sum()
    for day, begin, end in _parts_of_days(*span):
        ahead = ahead.add(model.factors[_weekday(day)], (end - begin) / DAY_MS)
        gamma = _distribution(model, ahead)
        for z, low in before.items():
            high = used + gamma.quantile(z)
            if z not in dates and low < limit <= high:
                dates[z] = round(begin + (end - begin) * (limit - low) / (high - low))
            before[z] = high
    chance = _distribution(model, ahead).exceeds(limit - used)
    at_end = Quantiles(before[-_P90], before[0.0], before[_P90])
    return Outlook(at_end, (dates.get(_P90), dates.get(0.0), dates.get(-_P90)), 100.0 * chance)


# ── the payload ────────────────────────────────────────────────────────────────────────────────

_HIGH_BELOW, _MEDIUM_BELOW = 0.25, 0.6
"""Widths of the band, as parts of the median use at the end, below which the confidence is high, or medium."""
_MINUTE_MS = 60_000


class Allowance(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the cycle of a bucket or a pool at its newest effective date `ts`; times in ms.

    `limit` is None where it is not known or there is none, which `unlimited` tells apart. `increment` is the size of an
    overage block in GB, `blocks` how many are used already, `reached` when the limit was reached.
    """

    ts: int
    used: float | None = None
    limit: float | None = None
    unlimited: bool = False
    cycle_end: int | None = None
    increment: float | None = None
    blocks: int = 0
    reached: int | None = None


def make_forecast(bucket_id: str, amounts: Amounts, allowance: Allowance) -> Forecast:
    """The forecast of a bucket, or of a pool for one of its members, without the ids that go with it."""
    amounts = amounts[-MAX_DAYS:]
    base = Forecast(
        bucket_id=bucket_id,
        time=rfc3339(allowance.ts),
        ts=allowance.ts,
        status=_status(amounts, allowance),
        method=METHOD,
        days_used=float(len(amounts)),
        cycle_end=None if allowance.cycle_end is None else short_time(allowance.cycle_end),
        used_gb=None if allowance.used is None else _rounded(allowance.used),
        entitlement_gb=None if allowance.limit is None else _rounded(allowance.limit),
    )
    used, limit, end = allowance.used, allowance.limit, allowance.cycle_end
    if base.status != "ok" or used is None or limit is None or end is None:
        return base
    model = fit(amounts)
    outlook = look_ahead(model, used, limit, (allowance.ts, end))
    if used >= limit:
        at = allowance.ts if allowance.reached is None else allowance.reached
        outlook = Outlook(outlook.used_at_end, (at, at, at), 100.0)
    return _with_outlook(base, outlook, allowance, has_level=model.level > 0.0)


def _status(amounts: Amounts, allowance: Allowance) -> ForecastStatus:
    if allowance.unlimited:
        return "unlimited"
    if allowance.used is None or allowance.limit is None or allowance.cycle_end is None:
        return "not_enough_data"
    ahead = allowance.cycle_end - allowance.ts
    return "ok" if len(amounts) >= MIN_DAYS and 0 < ahead <= MAX_AHEAD_DAYS * DAY_MS else "not_enough_data"


def _with_outlook(base: Forecast, outlook: Outlook, allowance: Allowance, *, has_level: bool) -> Forecast:
    at_end, dates = outlook.used_at_end, [_to_minute(at) for at in outlook.exhausted]
    blocks = [_blocks(allowance, use) for use in (at_end.p10, at_end.p50, at_end.p90)]
    return msgspec.structs.replace(
        base,
        confidence=_confidence(at_end) if has_level else "low",
        used_at_end_p10_gb=_rounded(at_end.p10),
        used_at_end_p50_gb=_rounded(at_end.p50),
        used_at_end_p90_gb=_rounded(at_end.p90),
        exhausted_p10=dates[0],
        exhausted_p50=dates[1],
        exhausted_p90=dates[2],
        exhaustion_probability_pct=round(outlook.probability_pct, 1),
        overage_p10_blocks=blocks[0],
        overage_p50_blocks=blocks[1],
        overage_p90_blocks=blocks[2],
    )


def _rounded(amount: float) -> float:
    return round(float(amount), 3)


def _to_minute(ts: int | None) -> str | None:
    """A time as it is published: what is forecast has no seconds."""
    return None if ts is None else short_time(round(ts / _MINUTE_MS) * _MINUTE_MS)


def _confidence(at_end: Quantiles) -> Confidence:
    width = at_end.p90 - at_end.p10
    if width < _HIGH_BELOW * at_end.p50:
        return "high"
    return "medium" if width < _MEDIUM_BELOW * at_end.p50 else "low"


def _blocks(allowance: Allowance, use: float) -> int | None:
    """Overage blocks that a use costs; None where the size of a block is not known."""
    if allowance.limit is None or allowance.increment is None or allowance.increment <= 0.0:
        return None
    # What a float cannot tell apart from a whole number of blocks is one.
    over = math.ceil(round((use - allowance.limit) / allowance.increment, 6))
    return max(0, over, allowance.blocks)
