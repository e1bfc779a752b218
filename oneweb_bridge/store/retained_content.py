"""What a broker should retain now: the content of records and newest samples, by the row that published it."""

from typing import get_args

from oneweb_bridge.model.records import RecordKind, Row
from oneweb_bridge.store.engine import Connection, placeholders
from oneweb_bridge.store.journal_sql import PAGE_ROWS, ROW_COLUMNS


class RetainedContent:
    """Reads what is retained after a range of journal rows, or of one id."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def records_between(self, low: int, high: int) -> list[tuple[int, RecordKind, str, bytes]]:
        """The next records published last by a row in (low, high]: row, kind, id and document."""
        rows = await self._connection.fetch_all(
            "SELECT seq, kind, id, doc FROM record WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
            (low, high, PAGE_ROWS),
        )
        return [(row[0], row[1], row[2], row[3].encode()) for row in rows]

    async def newest_between(self, low: int, high: int) -> list[tuple[int, str, str, str, bytes]]:
        """The next newest samples published by a row in (low, high]: row, entity, report, id and document."""
        rows = await self._connection.fetch_all(
            """SELECT seq, entity, report, id, doc FROM newest WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?""",
            (low, high, PAGE_ROWS),
        )
        return [(row[0], row[1], row[2], row[3], row[4].encode()) for row in rows]

    async def clearing_between(self, low: int, high: int) -> list[Row]:
        """The next rows in (low, high] that cleared retained topics."""
        rows = await self._connection.fetch_all(
            f"""SELECT {ROW_COLUMNS} FROM journal WHERE seq > ? AND seq <= ? AND what IN ('removed', 'clear')
                ORDER BY seq LIMIT ?""",
            (low, high, PAGE_ROWS),
        )
        return [Row(*row) for row in rows]

    async def of_id(self, id: str) -> tuple[list[tuple[RecordKind, str, bytes]], list[tuple[str, str, str, bytes]]]:
        """What is retained now of one id: its records, and its newest samples."""
        # Records are found by kind and id only, so all kinds are named.
        kinds = get_args(RecordKind)
        records = await self._connection.fetch_all(
            f"SELECT kind, id, doc FROM record WHERE kind IN ({placeholders(kinds)}) AND id = ?", (*kinds, id)
        )
        newest = await self._connection.fetch_all(
            "SELECT entity, report, id, doc FROM newest WHERE id = ? AND seq > 0", (id,)
        )
        return [(r[0], r[1], r[2].encode()) for r in records], [(n[0], n[1], n[2], n[3].encode()) for n in newest]

    async def rows_of_id_after(self, id: str, seq: int) -> list[Row]:
        """The next rows of one id behind `seq`."""
        # The plus keeps SQLite from going through all rows behind `seq` instead of those of the id.
        sql = f"SELECT {ROW_COLUMNS} FROM journal WHERE id = ? AND +seq > ? ORDER BY seq LIMIT ?"
        return [Row(*row) for row in await self._connection.fetch_all(sql, (id, seq, PAGE_ROWS))]
