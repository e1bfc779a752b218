"""The allowance forecast: what it says of known amounts, and how good it is on seven kinds of use."""

import math
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import forecast as backtest
from oneweb_bridge.model.forecast import Forecast
from oneweb_bridge.simulator.usage_kinds import KINDS
from oneweb_bridge.trends import forecast
from oneweb_bridge.trends.forecast import DAY_MS, Allowance, fit, look_ahead, make_forecast

MONDAY = 20_423
"""1 December 2025, days since the epoch."""
END = (MONDAY + 31) * DAY_MS


def level(days: int, amount: float = 10.0, first: int = MONDAY) -> list[tuple[int, float]]:
    """Days that are all the same."""
    return [(first + day, amount) for day in range(days)]


def made(amounts: list[tuple[int, float]], **changes: Any) -> Forecast:
    """The forecast after these days: 100 GB of 300 are used on the 11th."""
    known: dict[str, Any] = {"ts": (MONDAY + 10) * DAY_MS, "used": 100.0, "limit": 300.0, "cycle_end": END}
    return make_forecast("B", amounts, Allowance(**(known | {"increment": 30.0} | changes)))


def figures(result: Forecast) -> list[float]:
    return [
        value for value in (result.used_at_end_p10_gb, result.used_at_end_p50_gb, result.used_at_end_p90_gb) if value
    ]


# ── what is said ───────────────────────────────────────────────────────────────────────────────


def test_equal_days_go_on_as_they_are() -> None:
    """Ten days of 10 GB, 21 to go: about 310 GB at the end, exhausted on the day before the last, at most one block."""
    result = made(level(10))

    assert result.status == "ok"
    assert result.used_at_end_p50_gb == pytest.approx(310, abs=5)
    assert str(result.exhausted_p50).startswith(("2025-12-30", "2025-12-31"))
    assert result.overage_p50_blocks == 1
    assert (result.days_used, result.used_gb, result.entitlement_gb) == (10.0, 100.0, 300.0)
    assert (result.cycle_end, result.time) == ("2026-01-01T00:00:00Z", "2025-12-11T00:00:00.000Z")


@pytest.mark.parametrize("days", range(3, 57))
def test_equal_days_have_the_same_band_whatever_they_use(days: int) -> None:
    """Nothing hangs on how amounts are rounded, which differs between versions of Python."""
    widths = {amount: fit(level(days, amount)).cv2 for amount in (0.1, 0.3, 7.77, 10.0, 123.456)}
    assert widths == pytest.approx(dict.fromkeys(widths, widths[10.0]), rel=1e-9)
    assert widths[10.0] <= 0.15


def test_band_has_its_order_and_narrows() -> None:
    """p10, p50, p90 of the use rise, the dates too, and the band is narrower with less of the cycle to go."""
    early, late = made(level(5)), made(level(28), ts=(MONDAY + 28) * DAY_MS, used=280.0)

    assert figures(early) == sorted(figures(early))
    assert str(early.exhausted_p10) < str(early.exhausted_p50)
    assert figures(late)[2] - figures(late)[0] < 0.5 * (figures(early)[2] - figures(early)[0])
    assert (early.confidence, late.confidence) == ("medium", "high")


def test_date_and_use_at_the_end_agree() -> None:
    """A date is there exactly when the quantile of the use at the end reaches the allowance, blocks too."""
    for limit in range(150, 500, 10):
        result = made(level(10), limit=float(limit))
        low, middle, high = figures(result)
        dates = (result.exhausted_p90, result.exhausted_p50, result.exhausted_p10)
        assert [date is not None for date in dates] == [use >= limit for use in (low, middle, high)]
        blocks = (result.overage_p10_blocks, result.overage_p50_blocks, result.overage_p90_blocks)
        assert blocks == tuple(max(0, math.ceil((use - limit) / 30)) for use in (low, middle, high))


def test_probability_agrees_with_the_quantiles() -> None:
    """At an allowance that is the median use, or its p90, the probability is one half, or one tenth."""
    low, middle, high = figures(made(level(10), limit=1e9))

    for limit, expected in ((low, 90), (middle, 50), (high, 10)):
        assert made(level(10), limit=limit).exhaustion_probability_pct == pytest.approx(expected, abs=0.3)


def test_weekends_are_expected() -> None:
    """Who uses nothing at weekends is not expected to on the last weekend of the cycle."""
    weeks = [(MONDAY + day, 14.0 if day % 7 < 5 else 0.0) for day in range(26)]
    model = fit(weeks)
    saturday = MONDAY + 26
    use = [
        look_ahead(model, 0.0, 1e9, (day * DAY_MS, (day + 1) * DAY_MS)).used_at_end.p50
        for day in range(saturday, saturday + 3)
    ]

    assert use[0] < 0.5 * use[2]
    assert use[1] < 0.5 * use[2]


def test_later_days_count_more() -> None:
    """After a shift the forecast follows: ten days later at least half the way, six weeks later nearly all of it."""
    before = level(30, 10.0)

    assert fit([*before, *level(10, 20.0, MONDAY + 30)]).level > 15.0
    assert fit([*before, *level(26, 20.0, MONDAY + 30)]).level > 18.0


def test_forecast_is_the_same_for_the_same_past() -> None:
    """Nothing is drawn by chance."""
    assert made(level(10)) == made(level(10))


def test_exhausted_allowance_says_since_when() -> None:
    """What is used up has one date, in the past, and is certain; blocks go on growing."""
    reached = (MONDAY + 9) * DAY_MS
    result = made(level(10), used=310.0, reached=reached, blocks=1)

    assert result.exhausted_p10 == result.exhausted_p50 == result.exhausted_p90 == "2025-12-10T00:00:00Z"
    assert result.exhaustion_probability_pct == 100.0
    assert result.overage_p10_blocks is not None
    assert result.overage_p10_blocks > 1


def test_blocks_are_never_fewer_than_are_used() -> None:
    """Blocks that the API counts already are counted."""
    assert made(level(10), limit=1000.0, blocks=2).overage_p10_blocks == 2


def test_no_blocks_without_their_size() -> None:
    """Without an overage increment nothing is result of blocks."""
    result = made(level(10), increment=None)

    assert (result.overage_p10_blocks, result.overage_p50_blocks, result.overage_p90_blocks) == (None, None, None)


def test_days_without_use_say_little() -> None:
    """Three days of nothing: nothing more is expected, and it is result how little that means."""
    result = made(level(3, 0.0))

    assert figures(result) == [100.0, 100.0, 100.0]
    assert (result.exhausted_p10, result.exhaustion_probability_pct, result.confidence) == (None, 0.0, "low")


@pytest.mark.parametrize(
    ("amounts", "changes", "status"),
    [
        (level(2), {}, "not_enough_data"),
        (level(3), {}, "ok"),
        (level(10), {"limit": None}, "not_enough_data"),
        (level(10), {"used": None}, "not_enough_data"),
        (level(10), {"cycle_end": None}, "not_enough_data"),
        (level(10), {"cycle_end": (MONDAY + 10) * DAY_MS}, "not_enough_data"),
        (level(10), {"cycle_end": 253_402_300_799_000}, "not_enough_data"),
        (level(10), {"limit": None, "unlimited": True}, "unlimited"),
        ([], {"limit": None, "unlimited": True}, "unlimited"),
    ],
)
def test_without_enough_data_only_that_is_said(
    amounts: list[tuple[int, float]], changes: dict[str, Any], status: str
) -> None:
    """No figures without three full days, an allowance, a use or an end to come, and none of an unlimited one."""
    result = made(amounts, **changes)

    assert result.status == status
    assert (result.used_at_end_p50_gb is not None) == (status == "ok")
    assert (result.confidence is not None) == (status == "ok")


@given(
    st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 1e6)), min_size=3, max_size=56),
    st.floats(0.0, 1e6),
    st.floats(0.0, 1e6),
    st.integers(1, forecast.MAX_AHEAD_DAYS * DAY_MS),
)
def test_any_past_gives_a_band_in_its_order(
    gaps: list[tuple[int, float]], used: float, limit: float, ahead: int
) -> None:
    """Whatever was used: quantiles rise from what is used already, dates lie ahead within the cycle, in their order."""
    day, amounts = MONDAY, []
    for gap, amount in gaps:
        day += 1 + gap
        amounts.append((day, amount))
    now = (day + 1) * DAY_MS
    outlook = look_ahead(fit(amounts), used, limit, (now, now + ahead))

    assert used <= outlook.used_at_end.p10 <= outlook.used_at_end.p50 <= outlook.used_at_end.p90 < math.inf
    assert 0.0 <= outlook.probability_pct <= 100.0
    dates = [date for date in outlook.exhausted if date is not None]
    assert dates == sorted(dates)
    assert all(now <= date <= now + ahead for date in dates)


@given(st.floats(-4.0, 4.0), st.floats(2.0, 60.0))
def test_stretched_quantile_is_undone(z: float, days: float) -> None:
    """The probability is outlook by the same stretch as the quantiles."""
    stretch, unstretch = forecast._stretch, forecast._unstretch

    assert unstretch(stretch(z, days), days) == pytest.approx(z, abs=1e-6)


# ── how good it is ─────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def lines() -> dict[str, backtest.Judgement]:
    return {line.name: line for line in backtest.judgements(backtest.run_backtest())}


def test_backtest_beats_the_linear_projection(lines: dict[str, backtest.Judgement]) -> None:
    """Over all kinds, days and histories the loss is at most 0.65 times that of a straight line."""
    assert lines["all"].count == 5600
    assert lines["all"].ratio <= 0.65


def test_backtest_band_holds_the_truth(lines: dict[str, backtest.Judgement]) -> None:
    """The 80 % band holds the truth in 75 to 90 % of all cases, and in no kind of use in less than 60 %."""
    assert 75.0 <= lines["all"].within_pct <= 90.0
    assert min(lines[kind].within_pct for kind in KINDS) >= 60.0


def test_backtest_is_better_with_history_and_later(lines: dict[str, backtest.Judgement]) -> None:
    """History helps, and the error falls from day 3 to day 21."""
    errors = [lines[f"day {day}"].error for day in backtest.DAYS]

    assert all(later < earlier for earlier, later in pairwise(errors))
    assert lines["with 56 days of history"].loss < lines["first cycle"].loss


def test_documentation_has_the_figures_of_the_backtest(lines: dict[str, backtest.Judgement]) -> None:
    """What docs/trends.md says of how good the forecast is, was measured with this code."""
    page = (Path(backtest.__file__).parent.parent / "docs" / "trends.md").read_text(encoding="utf-8")

    assert "\n".join(backtest.table(list(lines.values()))) in page


def test_backtest_command_writes_table_and_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`python -m bench.forecast --write PAGE` prints the table and puts it, with a plot beside it, into the page."""
    page = tmp_path / "page.md"
    page.write_text(f"before\n{backtest.BEGIN}\n{backtest.END}\n")

    assert backtest.main(["--products", "1", "--write", str(page)]) == 0
    assert "| all | 56 |" in capsys.readouterr().out
    assert "(forecast.svg)" in page.read_text()
    assert (tmp_path / "forecast.svg").read_text().startswith("<svg")


def test_backtest_page_and_picture(lines: dict[str, backtest.Judgement]) -> None:
    """The table goes between its marks and stays there, the plot is SVG with a bar for each figure."""
    body = backtest.table(list(lines.values()))
    page = backtest.written(f"before\n{backtest.BEGIN}\nold\n{backtest.END}\nafter\n", body)

    assert "old" not in page
    assert page == backtest.written(page, body)
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    picture = ET.fromstring(backtest.picture(list(lines.values())))
    assert len(picture.findall("{http://www.w3.org/2000/svg}rect")) == 1 + 2 * 8
    with pytest.raises(ValueError, match="no place"):
        backtest.written("a page", body)
