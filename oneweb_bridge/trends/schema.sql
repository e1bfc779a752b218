-- The trends: every sample of years, folded from the journal. Days are counted since the epoch, in UTC.

-- How far the journal was looked through, and of which journal that is.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- A report of a terminal or product, or a usage bucket.
CREATE TABLE stream (
    stream INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    id TEXT NOT NULL,
    report TEXT NOT NULL,
    UNIQUE (entity, id, report)
);

-- The products to which a bucket belonged at any time.
CREATE TABLE bucket_product (
    product_id TEXT NOT NULL,
    stream INTEGER NOT NULL,
    PRIMARY KEY (product_id, stream)
) WITHOUT ROWID;
CREATE INDEX bucket_product_stream ON bucket_product (stream);

-- A day of a stream at full resolution: a chunk (see chunks.py).
CREATE TABLE fine (
    stream INTEGER NOT NULL,
    day INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (stream, day)
) WITHOUT ROWID;
CREATE INDEX fine_day ON fine (day);

-- What a day of a stream amounts to (see bins.Day) that is not kept at full resolution any more: zlib of JSON.
CREATE TABLE days (
    stream INTEGER NOT NULL,
    day INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (stream, day)
) WITHOUT ROWID;
CREATE INDEX days_day ON days (day);

-- The ids with samples of a day in the journal that are in no chunk yet, from row `seq` on.
CREATE TABLE pending (
    day INTEGER NOT NULL,
    id TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (day, id)
) WITHOUT ROWID;
CREATE INDEX pending_seq ON pending (seq);
CREATE INDEX pending_id ON pending (id);
