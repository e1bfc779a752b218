"""What a database notes of its writers by triggers of the tests, and what is wrong in it at the end.

Each statement that writes into the part of an instance is compared with the lease at that moment: the session's name
begins with the id of its holder. So a write of a worker that does not hold the instance is seen, in whatever table.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

_INSTALL = """
CREATE SCHEMA watch;
CREATE TABLE watch.stale_write (relation text NOT NULL, writer text NOT NULL, holder text NOT NULL);
CREATE TABLE watch.holder (number bigserial PRIMARY KEY, holder text NOT NULL, epoch bigint NOT NULL);

CREATE FUNCTION watch.note_write() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    holding text;
    writer text := split_part(current_setting('application_name'), ' ', 1);
BEGIN
    SELECT holder INTO holding FROM oneweb.lease WHERE instance = TG_ARGV[0];
    IF holding IS DISTINCT FROM writer THEN
        INSERT INTO watch.stale_write VALUES (TG_TABLE_NAME, writer, holding);
    END IF;
    RETURN NULL;
END
$$;

CREATE FUNCTION watch.note_holder() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO watch.holder (holder, epoch) VALUES (NEW.holder, NEW.epoch);
    RETURN NULL;
END
$$;
CREATE TRIGGER note_first AFTER INSERT ON oneweb.lease FOR EACH ROW EXECUTE FUNCTION watch.note_holder();
CREATE TRIGGER note_next AFTER UPDATE ON oneweb.lease FOR EACH ROW
WHEN ((OLD.holder, OLD.epoch) IS DISTINCT FROM (NEW.holder, NEW.epoch)) EXECUTE FUNCTION watch.note_holder();
"""
_TABLES = """
SELECT format('CREATE TRIGGER note_write AFTER INSERT OR UPDATE OR DELETE ON %I.%I FOR EACH STATEMENT '
'EXECUTE FUNCTION watch.note_write(''main'')', nspname, relname)
FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE nspname = 'oneweb_main' AND relkind = 'r'
"""


class Stored(msgspec.Struct, frozen=True):
    """What is in the database of the instance `main`. `stale_rows` stand behind rows of a newer epoch."""

    rows: int
    holders: int
    stale_rows: int
    stale_statements: int
    findings: list[str]


def install(url: str) -> None:
    """Makes the triggers in a database that has the tables of the instance `main`."""
    with psycopg.connect(url, autocommit=True) as db:
        db.execute(_INSTALL.encode())
        for (statement,) in db.execute(_TABLES.encode()).fetchall():
            db.execute(statement)


def read_stored(url: str) -> Stored:
    """What the journal, the lease and the triggers show."""
    with psycopg.connect(url, autocommit=True) as db:
        rows = db.execute("SELECT seq, epoch FROM oneweb.journal WHERE instance = 'main' ORDER BY seq").fetchall()
        head = db.execute("SELECT max(seq) FROM oneweb.journal_head WHERE instance = 'main'").fetchall()[0][0]
        epochs = [row[0] for row in db.execute("SELECT epoch FROM watch.holder ORDER BY number").fetchall()]
        stale = db.execute("SELECT relation, count(*) FROM watch.stale_write GROUP BY 1 ORDER BY 1").fetchall()
    stale_rows = count_stale([epoch for _, epoch in rows])
    findings = [f"{count} statements wrote into {relation} without holding the instance" for relation, count in stale]
    findings += [f"{stale_rows} rows of the journal were written under an older epoch"] * bool(stale_rows)
    findings += _gaps("the journal's numbers", [seq for seq, _ in rows], head)
    findings += _gaps("the epochs", epochs, len(epochs))
    return Stored(len(rows), len(epochs), stale_rows, sum(count for _, count in stale), findings)


def count_stale(epochs: Sequence[int]) -> int:
    """How many rows, in their order, are of an older epoch than a row before them."""
    newest = count = 0
    for epoch in epochs:
        count += epoch < newest
        newest = max(newest, epoch)
    return count


def _gaps(name: str, numbers: Sequence[Any], last: int) -> list[str]:
    """Numbers that begin with 1 and grow by 1 to the last one have neither gap nor repeat."""
    for expected, number in enumerate(numbers, 1):
        if number != expected:
            return [f"{name} have a gap or a repeat: {number} stands where {expected} should be"]
    return [] if len(numbers) == last else [f"{name} end with {len(numbers)} instead of {last}"]
