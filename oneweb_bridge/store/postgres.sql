-- The part of one instance, as schema.sql has it for SQLite: made in a schema of its own, and attached to the tables of
-- the same names in the schema oneweb. What each column means is written there. `instance` is added to every table, last.
-- Texts are compared byte by byte, as SQLite does.

CREATE TABLE meta (name text COLLATE "C" PRIMARY KEY, value text NOT NULL);

CREATE TABLE record (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    hash bytea NOT NULL DEFAULT '',
    seq bigint NOT NULL DEFAULT 0,
    missing bigint NOT NULL DEFAULT 0,
    missing_since bigint NOT NULL DEFAULT 0,
    presence_at bigint NOT NULL DEFAULT 0,
    doc text NOT NULL,
    event_at bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, id)
);
CREATE INDEX record_missing ON record (kind) WHERE missing > 0;
CREATE INDEX record_seq ON record (seq);
CREATE INDEX record_name ON record (oneweb.json_extract(doc, '$.name')) WHERE kind = 'terminal';
CREATE INDEX record_bucket ON record (oneweb.json_extract(doc, '$.product_id')) WHERE kind = 'usage';

CREATE TABLE removed (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE SEQUENCE newest_stream;
CREATE TABLE newest (
    stream bigint PRIMARY KEY DEFAULT nextval('newest_stream'),
    entity text COLLATE "C" NOT NULL,
    report text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    ts bigint NOT NULL,
    hash bigint NOT NULL,
    doc text NOT NULL,
    seq bigint NOT NULL,
    letters text NOT NULL DEFAULT '',
    UNIQUE (report, id)
);
CREATE INDEX newest_seq ON newest (seq);
CREATE INDEX newest_id ON newest (id);

CREATE TABLE seen (
    stream bigint NOT NULL,
    ts bigint NOT NULL,
    hash bigint NOT NULL,
    PRIMARY KEY (stream, ts)
);

CREATE TABLE product_link (
    product_id text COLLATE "C" NOT NULL,
    imei text COLLATE "C" NOT NULL,
    said_by text COLLATE "C" NOT NULL,
    PRIMARY KEY (product_id, imei, said_by)
);
CREATE INDEX product_link_imei ON product_link (imei);

CREATE TABLE stale (imei text COLLATE "C" PRIMARY KEY);

CREATE TABLE discovery (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    mark bigint NOT NULL DEFAULT 1,
    marked_at bigint NOT NULL DEFAULT 0,
    done bigint NOT NULL DEFAULT 0,
    topic text NOT NULL DEFAULT '',
    hash bytea NOT NULL DEFAULT '',
    entities text NOT NULL DEFAULT '{}',
    sent_at bigint NOT NULL DEFAULT 0,
    seq bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, id)
);
CREATE INDEX discovery_dirty ON discovery (kind, marked_at) WHERE mark > done;
CREATE INDEX discovery_gone ON discovery (sent_at) WHERE hash = '\x676f6e65';
CREATE INDEX discovery_unsent ON discovery (kind) WHERE topic = '';

-- The number of the last row that was ever appended: a row and no sequence, because a sequence leaves gaps.
CREATE TABLE journal_head (seq bigint NOT NULL);
INSERT INTO journal_head VALUES (0);

-- `epoch` is that of the lease under which a row was written.
CREATE TABLE journal (
    seq bigint PRIMARY KEY,
    at bigint NOT NULL,
    entity text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    what text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    ts bigint NOT NULL,
    body bytea NOT NULL,
    epoch bigint NOT NULL
);
CREATE INDEX journal_history ON journal (id, ts);
CREATE INDEX journal_events ON journal (seq) WHERE what IN ('added', 'changed', 'removed', 'components');

CREATE TABLE cursor (
    output text COLLATE "C" PRIMARY KEY,
    seq bigint NOT NULL,
    dropped bigint NOT NULL DEFAULT 0,
    restore_from bigint
);

CREATE TABLE dead (
    output text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    at bigint NOT NULL,
    topic text NOT NULL,
    reason text NOT NULL,
    PRIMARY KEY (output, seq)
);

CREATE TABLE lane (
    output text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    waiting bigint NOT NULL DEFAULT 0,
    told boolean NOT NULL DEFAULT false,
    PRIMARY KEY (output, class)
);

CREATE TABLE owed (
    output text COLLATE "C" NOT NULL,
    topic text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    name text NOT NULL,
    tries bigint NOT NULL DEFAULT 0,
    reason text NOT NULL,
    PRIMARY KEY (output, topic)
);
CREATE INDEX owed_tries ON owed (output, tries, topic);

CREATE TABLE call (
    id text COLLATE "C" PRIMARY KEY,
    fingerprint text NOT NULL DEFAULT '',
    complete boolean NOT NULL DEFAULT false,
    remapped boolean NOT NULL DEFAULT false,
    last_poll bigint NOT NULL DEFAULT 0,
    last_success bigint NOT NULL DEFAULT 0,
    window_end bigint NOT NULL DEFAULT 0,
    horizon bigint NOT NULL DEFAULT 0,
    held_since bigint NOT NULL DEFAULT 0,
    released boolean NOT NULL DEFAULT false,
    failures bigint NOT NULL DEFAULT 0,
    polled bigint NOT NULL DEFAULT 0,
    succeeded bigint NOT NULL DEFAULT 0,
    values_held text NOT NULL DEFAULT '{}'
);

CREATE TABLE usage_days (
    kind text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    body text NOT NULL,
    PRIMARY KEY (kind, id)
);

CREATE TABLE answer_shape (call text COLLATE "C" PRIMARY KEY, shape text NOT NULL);

CREATE TABLE unmatched (
    call text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    ts bigint NOT NULL,
    kept_at bigint NOT NULL,
    hash bytea NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (call, id, ts)
);
CREATE INDEX unmatched_kept ON unmatched (call, kept_at);

CREATE TABLE setting (
    call text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    value text NOT NULL,
    source text NOT NULL,
    at bigint NOT NULL,
    PRIMARY KEY (call, name)
);

CREATE TABLE command (
    topic text COLLATE "C" PRIMARY KEY,
    mark text NOT NULL,
    at bigint NOT NULL
);

CREATE SEQUENCE poll_request_number;
CREATE TABLE poll_request (
    number bigint PRIMARY KEY DEFAULT nextval('poll_request_number'),
    topic text COLLATE "C" NOT NULL,
    call text COLLATE "C" NOT NULL,
    remembered boolean NOT NULL,
    sender text,
    at bigint NOT NULL,
    UNIQUE (topic, call, remembered)
);

CREATE TABLE edge_node (number bigint PRIMARY KEY, bd_seq bigint);

CREATE TABLE edge_device (device text COLLATE "C" PRIMARY KEY, number bigint NOT NULL);

-- The trends; see trends/schema.sql. How far the journal was looked through is in `meta`.

CREATE SEQUENCE stream_number;
CREATE TABLE stream (
    stream bigint PRIMARY KEY DEFAULT nextval('stream_number'),
    entity text COLLATE "C" NOT NULL,
    id text COLLATE "C" NOT NULL,
    report text COLLATE "C" NOT NULL,
    UNIQUE (entity, id, report)
);

CREATE TABLE bucket_product (
    product_id text COLLATE "C" NOT NULL,
    stream bigint NOT NULL,
    PRIMARY KEY (product_id, stream)
);
CREATE INDEX bucket_product_stream ON bucket_product (stream);

CREATE TABLE fine (
    stream bigint NOT NULL,
    day bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (stream, day)
);
CREATE INDEX fine_day ON fine (day);

CREATE TABLE days (
    stream bigint NOT NULL,
    day bigint NOT NULL,
    body bytea NOT NULL,
    PRIMARY KEY (stream, day)
);
CREATE INDEX days_day ON days (day);

CREATE TABLE pending (
    day bigint NOT NULL,
    id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    PRIMARY KEY (day, id)
);
CREATE INDEX pending_seq ON pending (seq);
CREATE INDEX pending_id ON pending (id);
