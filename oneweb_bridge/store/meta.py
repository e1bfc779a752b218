"""The table `meta`: facts about a database, and the ids of its journal."""

import secrets
from collections.abc import Sequence
from typing import Any

import msgspec

from oneweb_bridge.model.records import FormerJournalIds
from oneweb_bridge.store.engine import Transaction

WRITE_META = """
INSERT INTO meta (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value
"""
READ_JOURNAL_IDS = "SELECT name, value FROM meta WHERE name IN ('journal', 'earlier')"
JournalIds = tuple[str, FormerJournalIds]
"""The journal's id, and those it had before, each with the last row that carries it."""


def new_journal_id() -> str:
    """A random id, the first part of every event id."""
    return secrets.token_hex(8)


def journal_ids_of(rows: Sequence[Any]) -> JournalIds:
    """The ids in what `READ_JOURNAL_IDS` gives."""
    values: dict[str, str] = {row[0]: row[1] for row in rows}
    earlier = msgspec.json.decode(values.get("earlier", "[]"), type=tuple[tuple[str, int], ...])
    return values.get("journal", ""), earlier


async def renew_journal_id(transaction: Transaction, until: int) -> JournalIds:
    """Gives the journal a new id; rows up to `until` keep the one they have. Returns all ids."""
    id, earlier = journal_ids_of(await transaction.fetch_all(READ_JOURNAL_IDS))
    ids = new_journal_id(), (*earlier, (id, until))
    await transaction.execute(WRITE_META, ("journal", ids[0]))
    await transaction.execute(WRITE_META, ("earlier", msgspec.json.encode(ids[1]).decode()))
    return ids
