"""The backtest of the allowance forecast: how good it is on seven kinds of use, against the linear projection.

    python -m bench.forecast                            prints the table
    python -m bench.forecast --write docs/trends.md     puts table and plot into that page

Each kind of the simulator is played by many products. On days 3, 7, 14 and 21 of a cycle of 30 the use at its end is
forecast, once with nothing but this cycle known, once with the 56 days before it; then it is compared with the truth.
The same seed gives the same figures, to the last digit.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

import msgspec

from bench import bars
from oneweb_bridge.simulator.usage_kinds import KINDS, amount_of_day
from oneweb_bridge.trends.forecast import DAY_MS, MAX_DAYS, fit, look_ahead

CYCLE_DAYS = 30
DAYS = (3, 7, 14, 21)
HISTORIES = (0, MAX_DAYS)
PRODUCTS = 100
"""Products of each kind, of which each begins its cycle on another day of the week and in another phase of its life."""
SEED = 7
_FIRST_DAY, _DAYS_BETWEEN = 20_000, 13
_NO_LIMIT = 1e9
BEGIN, END = "<!-- backtest: written by python -m bench.forecast -->", "<!-- backtest: end -->"


class Case(msgspec.Struct, frozen=True):
    """One forecast and the truth; amounts in per cent of what the cycle used in truth."""

    kind: str
    day: int
    history: int
    p10: float
    p50: float
    p90: float
    linear: float

    def loss(self) -> float:
        """The pinball loss of the three quantiles, added up."""
        return sum(_pinball(value, q) for value, q in ((self.p10, 0.1), (self.p50, 0.5), (self.p90, 0.9)))

    def linear_loss(self) -> float:
        """The same of the linear projection, which knows no quantiles."""
        return sum(_pinball(self.linear, q) for q in (0.1, 0.5, 0.9))

    def is_within(self) -> bool:
        """Whether the truth lies in the band."""
        return self.p10 <= 100.0 <= self.p90


def _pinball(forecast: float, quantile: float) -> float:
    error = 100.0 - forecast
    return error * quantile if error > 0.0 else -error * (1.0 - quantile)


def run_backtest(products: int = PRODUCTS) -> list[Case]:
    """All cases."""
    return [case for kind in KINDS for product in range(products) for case in _cases(kind, product)]


def _cases(kind: str, product: int) -> Iterator[Case]:
    keys, begin = (SEED, product), _FIRST_DAY + product * _DAYS_BETWEEN
    amounts = [(day, amount_of_day(kind, keys, day)) for day in range(begin - MAX_DAYS, begin + CYCLE_DAYS)]
    total = sum(amount for day, amount in amounts if day >= begin)
    for history in HISTORIES:
        for days in DAYS:
            past = [(day, amount) for day, amount in amounts if begin - history <= day < begin + days][-MAX_DAYS:]
            used = sum(amount for day, amount in past if day >= begin)
            span = ((begin + days) * DAY_MS, (begin + CYCLE_DAYS) * DAY_MS)
            at_end = look_ahead(fit(past), used, _NO_LIMIT, span).used_at_end
            parts = [100.0 * use / total for use in (at_end.p10, at_end.p50, at_end.p90, used / days * CYCLE_DAYS)]
            yield Case(kind, days, history, *parts)


# ── the page ───────────────────────────────────────────────────────────────────────────────────

HEADINGS = (
    "use",
    "forecasts",
    "loss",
    "loss, linear",
    "ratio",
    "truth within the band",
    "median error",
    "median error, linear",
)


class Judgement(msgspec.Struct, frozen=True):
    """Some cases as one line: means of the losses and errors in per cent of a cycle, and the share within the band."""

    name: str
    count: int
    loss: float
    linear_loss: float
    within_pct: float
    error: float
    linear_error: float

    @property
    def ratio(self) -> float:
        """The loss as a part of that of the linear projection."""
        return self.loss / self.linear_loss


def judge(name: str, cases: Sequence[Case]) -> Judgement:
    """The line of some cases."""
    return Judgement(
        name,
        len(cases),
        fmean(case.loss() for case in cases),
        fmean(case.linear_loss() for case in cases),
        100.0 * fmean(case.is_within() for case in cases),
        fmean(abs(case.p50 - 100.0) for case in cases),
        fmean(abs(case.linear - 100.0) for case in cases),
    )


def judgements(cases: Sequence[Case]) -> list[Judgement]:
    """A line for each kind, each day, without and with history, and for all."""
    parts: Mapping[str, Sequence[Case]] = {
        **{kind: [c for c in cases if c.kind == kind] for kind in KINDS},
        **{f"day {day}": [c for c in cases if c.day == day] for day in DAYS},
        "first cycle": [c for c in cases if not c.history],
        "with 56 days of history": [c for c in cases if c.history],
        "all": cases,
    }
    return [judge(name, part) for name, part in parts.items()]


def table(lines: Sequence[Judgement]) -> list[str]:
    """The lines as a table of a page."""
    rows = [
        f"| {line.name} | {line.count} | {line.loss:.1f} | {line.linear_loss:.1f} | {line.ratio:.2f} | "
        f"{line.within_pct:.0f} % | {line.error:.1f} | {line.linear_error:.1f} |"
        for line in lines
    ]
    return [f"| {' | '.join(HEADINGS)} |", "|---" + "|---:" * (len(HEADINGS) - 1) + "|", *rows]


def picture(lines: Sequence[Judgement]) -> str:
    """The losses of each kind, of the forecast and of the linear projection, as SVG."""
    kinds = [line for line in lines if line.name in KINDS or line.name == "all"]
    series = {
        "forecast": [line.loss for line in kinds],
        "linear projection": [line.linear_loss for line in kinds],
    }
    return bars.svg([line.name for line in kinds], series, "pinball loss, % of the cycle's use (less is better)")


def written(page: str, body: Sequence[str]) -> str:
    """The page with `body` between its marks. Raises ValueError where it has none."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no place for the table: expected the lines {BEGIN} and {END}")
    return before + "\n".join([BEGIN, "", *body, "", END]) + after


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table, and writes it into a page when asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.forecast", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--products", type=int, default=PRODUCTS, help="products of each kind (default: %(default)s)")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="the page that gets table and plot")
    options = parser.parse_args(arguments)
    lines = judgements(run_backtest(options.products))
    print("\n".join(table(lines)))
    if options.write is not None:
        name = "forecast.svg"
        options.write.with_name(name).write_text(picture(lines), encoding="utf-8")
        plot = f"![The loss of the forecast and of the linear projection, for each kind of use]({name})"
        page = options.write.read_text(encoding="utf-8")
        options.write.write_text(written(page, [*table(lines), "", plot]), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
