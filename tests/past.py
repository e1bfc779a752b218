"""A journal with its trends, for tests: samples and events to write, fold, trim and read."""

import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from oneweb_bridge.clock import Clock
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.records import Batch, Entry
from oneweb_bridge.store import store
from oneweb_bridge.trends.chunks import DAY_MS, StreamKey
from oneweb_bridge.trends.file import open_trends
from oneweb_bridge.trends.fold import FoldRules, Moment, Outcome, fold_trends
from oneweb_bridge.trends.items import Selection, iter_items
from oneweb_bridge.trends.reading import open_history
from oneweb_bridge.trends.series import Span

TODAY = 20_000
BEGIN = TODAY * DAY_MS
HOUR = 3_600_000
RULES = FoldRules(
    keep=730 * 86400.0, keep_daily=3650 * 86400.0, max_size=10**9, counters={"traffic": frozenset({"tx_bytes"})}
)
EVER = Span(0, 1 << 50)
SIGNAL = StreamKey("terminal", "T", "signal_quality")


def sample(ts: int, id: str = "T", what: Any = "history", **values: Any) -> Entry:
    """A sample of the signal quality as the bridge journals it."""
    body = encode({"imei": id, "report": "signal_quality", "time": rfc3339(ts), "ts": ts, **values})
    return Entry("terminal", id, what, "signal_quality", ts, body)


def traffic(ts: int, tx: int) -> Entry:
    """A sample of a counter."""
    body = encode({"imei": "T", "report": "traffic", "time": rfc3339(ts), "ts": ts, "tx_bytes": tx})
    return Entry("terminal", "T", "history", "traffic", ts, body)


def usage(ts: int, used: float, *, product: str | None = "P", bucket: str = "B") -> Entry:
    """A usage bucket, under its product where it has one."""
    owner = {} if product is None else {"product_id": product}
    body = encode({"bucket_id": bucket, "used_gb": used, **owner, "time": rfc3339(ts), "ts": ts})
    if product is None:
        return Entry("usage", bucket, "usage", "", ts, body)
    return Entry("product", product, "usage", bucket, ts, body)


def changed(ts: int) -> Entry:
    """An event."""
    body = encode({"changed": {"state": {"from": "online", "to": "offline"}}, "record": {}, "initial": False})
    return Entry("terminal", "T", "changed", "", ts, body)


class Past:
    """A journal and its trends."""

    def __init__(self, db: store.Store, directory: Path) -> None:
        self.db = db
        self.path = directory / "bridge.db"
        self.trends = directory / "bridge.trends.db"
        self.is_known = False

    async def write(self, *entries: Entry) -> None:
        await self.db.commit(Batch(entries=list(entries)))

    def fold(self, now: int = BEGIN + DAY_MS + 4 * HOUR, *, through: int = 0, steady: int = 1 << 50) -> Outcome:
        """Folds what is over at some time; the journal counts as long enough to wait for that."""
        moment = Moment(api=now, steady=steady, through=through)
        outcome = fold_trends(self.path, self.trends, RULES, moment, is_known=self.is_known, stop=threading.Event())
        self.is_known = True
        return outcome

    def trim(self, seq: int = 1 << 50) -> None:
        """Takes away rows as housekeeping does."""
        with sqlite3.connect(self.path) as db:
            db.execute("DELETE FROM journal WHERE seq <= ?", (seq,))
        db.close()

    def shown(self, entity: str = "terminal", id: str = "T", report: str | None = None) -> list[bytes]:
        """The bodies that `history` gives."""
        with open_history(self.path, self.trends) as history:
            return [item.body for item in iter_items(history, Selection(entity, id, EVER, report))]

    def chunks(self) -> int:
        """How many chunks there are."""
        with open_trends(self.trends, read_only=True) as file:
            return sum(len(list(file.fine(number, 0, 1 << 40))) for number in range(1, 50))


@contextlib.asynccontextmanager
async def open_past(directory: Path) -> AsyncIterator[Past]:
    """An empty journal and no trends."""
    async with store.open_store(directory / "bridge.db", Clock(lambda: 2.0, lambda: 2.0, "a boot")) as db:
        yield Past(db, directory)
