"""The trends against the simulator's ledger: every sample that the API showed, once, at its time, with its last values.

The judge reads the ledger by itself and shares no code with the bridge's readers.
"""

import json
import sqlite3
import threading
from pathlib import Path
from typing import Any

from oneweb_bridge.trends.chunks import StreamKey
from oneweb_bridge.trends.fold import Moment, Outcome, fold_trends
from oneweb_bridge.trends.items import Selection, iter_items
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.trends.series import Indicator, SeriesQuery
from oneweb_bridge.trends.task import rules_of
from tests import checker, polls, truth
from tests.past import EVER

REPORTS = ("ut_link_availability", "ut_signal_quality", "ut_resource_state", "ut_traffic", "product_throughput")
HOUR = 3600.0
Samples = dict[tuple[str, str, int], dict[str, Any]]
"""By report, id as a topic level, and time."""


def shown_by_the_api(path: Path) -> Samples:
    """What the API showed last of each sample."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    samples: Samples = {}
    for listing in checker.listings(lines):
        for _, (place, report, ts, values) in checker._versions(listing, "oneweb"):
            samples[report, place.rpartition("/")[2], ts] = json.loads(values)
    return samples


def kept_by_the_bridge(b: polls.Bench, directory: Path) -> Samples:
    """What `history` shows, without marks."""
    samples: Samples = {}
    with open_history(directory / "bridge.db", directory / "bridge.trends.db") as history:
        for entity, id in [
            *(("terminal", id) for id in b.ids("terminals")),
            *(("product", id) for id in b.ids("products")),
        ]:
            for item in iter_items(history, Selection(entity, id, EVER)):
                if item.kind not in ("added", "changed", "removed", "usage", "presence"):
                    body = json.loads(item.body)
                    key = (item.kind, truth.level(id), item.ts)
                    assert key not in samples
                    shared = ("imei", "product_id", "product_name", "report", "time", "ts", "corrected")
                    samples[key] = {n: v for n, v in body.items() if n not in shared}
    return samples


def fold(b: polls.Bench, directory: Path) -> Outcome:
    """A pass as the bridge makes it, with a journal that is long enough."""
    moment = Moment(api=b.api.now(), steady=1 << 50)
    rules = rules_of(polls.configured(b.sim.url))
    return fold_trends(
        directory / "bridge.db", directory / "bridge.trends.db", rules, moment, is_known=False, stop=threading.Event()
    )


async def play(b: polls.Bench, hours: int) -> None:
    """Polls every hour."""
    for _ in range(hours):
        await b.later(HOUR)
        await b.poll(*REPORTS)


async def test_every_sample_of_the_ledger_is_kept_once(tmp_path: Path) -> None:
    """Late and corrected ones too; before and after folding, trimming and a restart; in few bytes each."""
    options = {"ledger": str(tmp_path / "ledger.jsonl"), "terminals": 6}
    async with polls.fleet(**options) as fleet:
        async with polls.opened(tmp_path, fleet) as b:
            await b.poll(*polls.RECORDS)
            await play(b, 30)
            before = kept_by_the_bridge(b, tmp_path)
            assert before == shown_by_the_api(tmp_path / "ledger.jsonl")
            outcome = fold(b, tmp_path)
            assert outcome.ids > 0
            assert kept_by_the_bridge(b, tmp_path) == before
        with sqlite3.connect(tmp_path / "bridge.db") as db:
            db.execute("DELETE FROM journal WHERE seq <= ?", (outcome.folded_through,))
        db.close()
        async with polls.opened(tmp_path, fleet) as b:
            await play(b, 30)
            fold(b, tmp_path)
            kept = kept_by_the_bridge(b, tmp_path)
            assert kept == shown_by_the_api(tmp_path / "ledger.jsonl")
            assert len(kept) > len(before)
            check_counters(b, tmp_path)
        check_size(tmp_path)


def check_counters(b: polls.Bench, directory: Path) -> None:
    """The simulator resets counters now and then: no rate is negative, and some are not there."""
    rates: list[float | None] = []
    with open_history(directory / "bridge.db", directory / "bridge.trends.db") as history:
        for id in b.ids("terminals"):
            stream = StreamKey("terminal", id, "traffic")
            names = ("cnx_tx_bytes", "mgmt_tx_bytes", "wan_tx_bytes")
            known = {name: Indicator("B", "cumulative") for name in names}
            query = SeriesQuery(stream=stream, span=EVER, names=names, indicators=known, points=10**6)
            rates += [rate for line in history.read_series(query).series if isinstance(line.v, list) for rate in line.v]
    assert min(rate for rate in rates if rate is not None) >= 0
    assert None in rates


def check_size(directory: Path) -> None:
    """Whole days take at most 12 bytes a sample."""
    with sqlite3.connect(directory / "bridge.trends.db") as db:
        whole = "SELECT day FROM fine GROUP BY day ORDER BY count(*) DESC, day LIMIT 1"
        ((day,),) = db.execute(whole).fetchall()
        ((size,),) = db.execute("SELECT sum(length(body)) FROM fine WHERE day = ?", (day,)).fetchall()
    db.close()
    with open_history(directory / "none.db", directory / "bridge.trends.db") as history:
        count = sum(
            len(samples.ts)
            for stream in history.all_streams()
            for each, samples in history.read_days(stream, EVER)
            if each == day
        )
    assert count > 1000
    assert size / count <= 12, (size, count)
