"""Reads the tables of samples: the newest of each report and id, and those that the API may show again."""

from collections.abc import Sequence

import msgspec

from oneweb_bridge.model.records import KnownSamples, OnlineTerminal
from oneweb_bridge.store import slices
from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import placeholders


class Samples:
    """The tables `newest` and `seen`. Times in ms; all ids of one call must be at most a slice."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    async def reports_of(self, entity: str, ids: Sequence[str]) -> dict[str, list[str]]:
        """Which reports have a retained newest sample, for each id that has one."""
        rows = await self._connections.rows(
            f"""SELECT id, report FROM newest WHERE entity = ? AND seq > 0 AND id IN ({placeholders(ids)})
                ORDER BY report""",
            (entity, *ids),
        )
        reports: dict[str, list[str]] = {}
        for id, report in rows:
            reports.setdefault(id, []).append(report)
        return reports

    async def known_samples(self, report: str, ids: Sequence[str]) -> dict[str, KnownSamples]:
        """The samples of a report that are known, for each of the ids that has had any."""
        seen = self._connections.dialect.object_of("s.ts", "s.hash")
        rows = await self._connections.rows(
            f"""SELECT n.id, n.ts, n.hash, (SELECT {seen} FROM seen s WHERE s.stream = n.stream)
                FROM newest n WHERE n.report = ? AND n.id IN ({placeholders(ids)})""",
            (report, *ids),
        )
        return {id: KnownSamples(ts, hash_, _seen(ts, hash_, others)) for id, ts, hash_, others in rows}

    async def newest_sample(self, report: str, latest: int) -> int:
        """The time of the newest sample of a report up to `latest`; -1 when there is none."""
        rows = await self._connections.rows("SELECT max(ts) FROM newest WHERE report = ? AND ts <= ?", (report, latest))
        return -1 if rows[0][0] is None else int(rows[0][0])

    async def newest_samples_of_online(self, report: str, states: Sequence[str], latest: int) -> list[OnlineTerminal]:
        """The newest sample time up to `latest`, and the one before, of terminals in one of `states`, in any case.

        One that the last listing did not show is not known to be online.
        """
        rows = await self._connections.rows(
            f"""SELECT n.id, n.ts, (SELECT max(s.ts) FROM seen s WHERE s.stream = n.stream AND s.ts < n.ts),
                    r.event_at
                FROM newest n JOIN record r ON r.kind = 'terminal' AND r.id = n.id AND r.missing = 0
                WHERE n.report = ? AND n.ts BETWEEN 0 AND ?
                    AND lower(json_extract(r.doc, '$.state')) IN ({placeholders(states)})
                ORDER BY n.id""",
            (report, latest, *(state.lower() for state in states)),
        )
        return [OnlineTerminal(id, ts, -1 if before is None else before, event) for id, ts, before, event in rows]

    async def delete_seen_samples(self, report: str, before: int) -> None:
        """Deletes what is known of the samples of a report older than `before`, except the newest of each id."""
        rows = await self._connections.rows("SELECT stream FROM newest WHERE report = ?", (report,))
        for part in slices.slices_of([row[0] for row in rows]):
            async with self._connections.transaction() as transaction:
                await transaction.execute_many(
                    "DELETE FROM seen WHERE stream = ? AND ts < ?", [(stream, before) for stream in part]
                )


_decode_seen = msgspec.json.Decoder(dict[int, int]).decode


def _seen(newest_ts: int, newest_hash: int, others: str | None) -> dict[int, int]:
    """The hashes by time of the newest sample, where there is any, and of others, given as JSON."""
    seen = {} if newest_ts < 0 else {newest_ts: newest_hash}
    return seen if others is None else seen | _decode_seen(others)
