"""`oneweb-bridge history`: the forms of its lines, and sentences for what cannot be asked."""

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from oneweb_bridge.cli import main as cli
from oneweb_bridge.cli.history import HistoryQuery, print_history
from oneweb_bridge.clock import Clock
from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.store import store
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.trends.chunks import DAY_MS
from tests.past import BEGIN, HOUR, Past, changed, sample, traffic, usage

SPAN = {"since": "0001-01-01T00:00:00Z", "until": "9999-12-31T23:59:59Z"}


def printed(past: Past, form: Any = "table", **query: Any) -> list[str]:
    """The lines of a query over everything."""
    lines: list[str] = []
    given = {"imei": "T", **SPAN, **query}
    print_history((past.path, past.trends), HistoryQuery(**given), form, lines.append, lambda _: None)
    return lines


async def test_lines_are_the_same_before_and_after_folding(past: Past) -> None:
    """A table, CSV and JSON lines: a sample with its values, an event with what changed."""
    await past.write(
        sample(BEGIN, sinr_db=1.0, mode="=cmd()"), changed(BEGIN + 1), sample(BEGIN, sinr_db=2.0, mode="=cmd()")
    )
    for _ in range(2):
        table, as_csv, as_json = (printed(past, form) for form in ("table", "csv", "json"))
        assert table == [
            "2024-10-04T00:00:00.000Z  signal_quality      sinr_db=2.0  mode==cmd()  corrected=true",
            "2024-10-04T00:00:00.001Z  changed             state=online → offline",
        ]
        assert as_csv == [
            "time,id,kind,name,value",
            "2024-10-04T00:00:00.000Z,T,signal_quality,sinr_db,2.0",
            "2024-10-04T00:00:00.000Z,T,signal_quality,mode,'=cmd()",
            "2024-10-04T00:00:00.000Z,T,signal_quality,corrected,true",
            "2024-10-04T00:00:00.001Z,T,changed,state,online → offline",
        ]
        first, second = (json.loads(line) for line in as_json)
        assert list(first) == ["time", "ts", "kind", "data"]
        assert (first["kind"], first["ts"], first["data"]["sinr_db"]) == ("signal_quality", BEGIN, 2.0)
        assert second["data"]["changed"] == {"state": {"from": "online", "to": "offline"}}
        past.fold()
    assert printed(past, report="traffic") == []
    assert len(printed(past, report="signal_quality")) == 1


async def test_intervals_have_min_mean_max_and_count(past: Past) -> None:
    """Of raw values, counters too; numbers only, no events."""
    await past.write(*(sample(BEGIN + m * 60_000, sinr_db=float(m), s="x") for m in (0, 30, 90)))
    await past.write(traffic(BEGIN + 1, 5), changed(BEGIN))
    for _ in range(2):
        assert [json.loads(line) for line in printed(past, "json", every="1h")] == [
            {
                "time": "2024-10-04T00:00:00.000Z",
                "ts": BEGIN,
                "kind": "signal_quality",
                "every": 3600,
                "data": {"sinr_db": {"min": 0.0, "mean": 15.0, "max": 30.0, "count": 2}},
            },
            {
                "time": "2024-10-04T00:00:00.000Z",
                "ts": BEGIN,
                "kind": "traffic",
                "every": 3600,
                "data": {"tx_bytes": {"min": 5, "mean": 5.0, "max": 5, "count": 1}},
            },
            {
                "time": "2024-10-04T01:00:00.000Z",
                "ts": BEGIN + HOUR,
                "kind": "signal_quality",
                "every": 3600,
                "data": {"sinr_db": {"min": 90.0, "mean": 90.0, "max": 90.0, "count": 1}},
            },
        ]
        assert printed(past, "csv", every="7d", report="signal_quality") == [
            "time,id,kind,name,min,mean,max,count",
            "2024-10-03T00:00:00.000Z,T,signal_quality,sinr_db,0.0,40.0,90.0,3",
        ]
        past.fold()


async def test_usage_of_a_product_is_shown(past: Past) -> None:
    """Its buckets, under its own id."""
    await past.write(usage(BEGIN, 1.5))
    for _ in range(2):
        lines = printed(past, "csv", imei=None, product="P", report="usage")
        assert lines[1:] == ["2024-10-04T00:00:00.000Z,P,usage,used_gb,1.5"]
        past.fold()


async def test_first_component_list_is_no_event(tmp_path: Path) -> None:
    """It was not published as one; later ones show what changed, without what the row has for the bridge."""
    body = b'{"components":{"a":"2"},"changed":{"components.a":{"from":"1","to":"2"}},"record":{"imei":"T"}}'
    entries = [
        Entry("terminal", "T", "components", "", BEGIN, b'{"components":{"a":"1"}}'),
        Entry("terminal", "T", "components", "", BEGIN + 1, body),
        Entry("terminal", "T", "removed", "", BEGIN + 2, b'{"record":{"imei":"T"},"clears":["state"]}'),
    ]
    async with store.open_store(tmp_path / "bridge.db", Clock(lambda: 2.0, lambda: 2.0, "a boot")) as db:
        await db.commit(Batch(entries=entries))
        lines = [json.loads(line) for line in printed(Past(db, tmp_path), "json")]
    assert [line["kind"] for line in lines] == ["changed", "removed"]
    assert list(lines[0]["data"]) == ["changed", "record"]
    assert lines[1]["data"] == {"record": {"imei": "T"}}


@pytest.mark.parametrize(
    "wrong",
    [
        ("--every", "0"),
        ("--every", "59s"),
        ("--every", "soon"),
        ("--every", "1m", "--since", "2022-01-01T00:00:00Z", "--until", "2025-01-01T00:00:00Z"),
        ("--every", "1m", "--since", "0001-01-01T00:00:00Z", "--until", "9999-12-31T00:00:00Z"),
        ("--since", "2025-06-17T13:40:07"),
        ("--until", "2025-06-17"),
        ("--since", "2025-06-17T13:40:07Z", "--until", "2025-06-17T13:40:07Z"),
        ("--since", "0000-01-01T00:00:00Z"),
        ("--until", "0001-01-01T00:00:00Z"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: tuple[str, ...]
) -> None:
    """Exit 2, and one sentence that names the option, also where there is no database."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["history", "--imei", "T", *wrong]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("oneweb-bridge: history: ")
    assert len(err.splitlines()) == 1
    assert wrong[0].strip("-") in err or "until" in err


async def test_empty_span_is_a_sentence(
    past: Past, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the output, which stays empty; it is no failure. With something in the span there is no sentence."""
    await past.write(usage(BEGIN, 1.5))
    monkeypatch.chdir(past.path.parent)
    Path("b.yaml").write_text(f"state: {{path: {past.path}}}")
    begin = ["history", "-c", "b.yaml", "--product", "P", "--since"]
    for since, error in (
        ("9999-12-31T00:00:00Z", "oneweb-bridge: history: nothing is kept of P in this span\n"),
        ("0001-01-01T00:00:00Z", ""),
    ):
        assert await asyncio.to_thread(cli.main, [*begin, since]) == 0
        out, err = capsys.readouterr()
        assert (bool(out), err) == (not error, error)


async def test_years_of_days_are_asked_for_from_year_1_to_9999(past: Past) -> None:
    """The longest span there is has few intervals of a day."""
    await past.write(sample(BEGIN, sinr_db=1.0), sample(BEGIN + 3 * DAY_MS, sinr_db=2.0))
    assert len(printed(past, "csv", every="1d")) == 3


async def test_chunk_that_cannot_be_read_is_a_sentence(past: Past) -> None:
    """It names the report, the id and the day."""
    await past.write(sample(BEGIN, sinr_db=1.0))
    past.fold()
    with sqlite3.connect(past.trends) as db:
        db.execute("UPDATE fine SET body = x'00'")
    db.close()
    with pytest.raises(StoreError, match="signal_quality of T on 2024-10-04 cannot be read"):
        printed(past)


# ── backup ─────────────────────────────────────────────────────────────────────────────────────


async def test_backup_takes_the_trends_too(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beside the copy of the database and named after it, both or none; restored, nothing is missing or doubled."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.yaml").write_text("state: {path: bridge.db}\n")
    await past.write(sample(BEGIN, sinr_db=1.0), sample(BEGIN + HOUR, sinr_db=2.0))
    past.trim(past.fold().folded_through)
    await past.write(sample(BEGIN + 2 * HOUR, sinr_db=3.0))
    before = past.shown()
    (tmp_path / "taken.trends.db").write_text("")
    assert cli.main(["backup", "taken.db"]) == 1
    assert "taken.trends.db exists already" in capsys.readouterr().err
    assert not (tmp_path / "taken.db").exists()
    assert cli.main(["backup", "bridge.trends.db", "--force"]) == 1
    assert cli.main(["backup", "copy.db"]) == 0
    assert capsys.readouterr().out.count(" MB") == 2
    copy = Past(past.db, tmp_path)
    copy.path, copy.trends = tmp_path / "copy.db", tmp_path / "copy.trends.db"
    assert (copy.trends.stat().st_mode & 0o777, copy.shown()) == (0o600, before)
    assert copy.fold().error == ""
    assert copy.shown() == before


# ── plot ───────────────────────────────────────────────────────────────────────────────────────


async def write_a_day(past: Past) -> None:
    """Numbers with a gap, a counter with a reset, and a text."""
    minutes = [*range(0, 600, 10), *range(800, 1400, 10)]
    entries = [sample(BEGIN + m * 60_000, sinr_db=m / 100, mode="a" if m < 300 else "<b>") for m in minutes]
    await past.write(*entries, *(traffic(BEGIN + m * 60_000, m % 700) for m in minutes))


async def test_plot_draws_in_the_terminal(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A chart for each indicator, a strip for each text, within the width of the terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "90")
    (tmp_path / "bridge.yaml").write_text("state: {path: bridge.db}\n")
    await write_a_day(past)
    past.fold()
    span = ("--imei", "T", "--since", SPAN["since"])
    assert cli.main(["history", *span, "--plot"]) == 0
    out = capsys.readouterr().out
    assert "sinr_db: now 13.9, min 0, max 13.9" in out
    assert "█ a, ▒ <b>" in out
    assert "tx_bytes: now" in out
    assert max(map(len, out.splitlines())) <= 90
    assert cli.main(["history", *span, "--plot", "--every", "1h"]) == 0
    assert "sinr_db: now 13.85" in capsys.readouterr().out
    assert cli.main(["history", "--imei", "T", "--since", "9999-12-31T00:00:00Z", "--plot"]) == 0
    assert capsys.readouterr().out == f"{cli.NOTHING_TO_DRAW}\n"


async def test_single_sample_of_a_counter_is_no_picture(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It has no rate: a sentence in the terminal, and no file without a chart."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.yaml").write_text("state: {path: bridge.db}\n")
    body = b'{"imei":"T","report":"traffic","time":"2024-10-04T00:00:00.000Z","ts":%d,"cnx_tx_bytes":5}' % BEGIN
    await past.write(Entry("terminal", "T", "history", "traffic", BEGIN, body))
    span = ["history", "--imei", "T", "--since", SPAN["since"], "--plot"]
    assert (cli.main(span), capsys.readouterr().out) == (0, f"{cli.NOTHING_TO_DRAW}\n")
    assert cli.main([*span, "c.svg"]) == 1
    assert not (tmp_path / "c.svg").exists()


async def test_plot_draws_into_a_file(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SVG and PNG; another ending, an empty span or a place that cannot be written is a sentence."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bridge.yaml").write_text("state: {path: bridge.db}\n")
    await write_a_day(past)
    span = ("history", "--imei", "T", "--since", SPAN["since"])
    assert cli.main([*span, "--plot", "a.svg"]) == 0
    root = ET.parse(tmp_path / "a.svg").getroot()
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "mode: <b>" in texts
    # A gap cuts the line: two pieces of the signal, and of the counter one more for its resets.
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) > 4
    assert cli.main([*span, "--plot", "a.png", "--every", "1h"]) == 0
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr() == ("", "")
    for arguments, code in (((*span, "--plot", "a.gif"), 2), ((*span, "--plot", "no/a.svg"), 1)):
        assert cli.main(list(arguments)) == code
    assert cli.main(["history", "--imei", "nobody", "--plot", "b.svg"]) == 1
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 3)
    assert not (tmp_path / "b.svg").exists()
