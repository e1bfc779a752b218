-- What the bridge keeps. Times are in milliseconds: since the epoch, or steady (see clock.py) where ages are compared:
-- journal.at, record.missing_since and presence_at, call.held_since, polled and succeeded, discovery.marked_at and
-- sent_at. Ids and topics are as the API sent them.

-- Facts about this database: its journal id, the instance that owns it, counters.
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

-- The announced view of each entity. `doc` is what was published last; `seq` is the journal row that did it;
-- `hash` is of those members of the API's record that can cause an event (see glance.py); `event_at` is the time of
-- what published it, in ms since the epoch.
CREATE TABLE record (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    hash BLOB NOT NULL DEFAULT x'',
    seq INTEGER NOT NULL DEFAULT 0,
    missing INTEGER NOT NULL DEFAULT 0,
    missing_since INTEGER NOT NULL DEFAULT 0,
    presence_at INTEGER NOT NULL DEFAULT 0,
    doc TEXT NOT NULL,
    event_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, id)
);
-- What a poll asks of every record is answered from here, without reading the documents.
CREATE INDEX record_settled ON record (kind, id, hash, missing, presence_at);
CREATE INDEX record_missing ON record (kind) WHERE missing > 0;
CREATE INDEX record_seq ON record (seq);
CREATE INDEX record_name ON record (json_extract(doc, '$.name')) WHERE kind = 'terminal';
CREATE INDEX record_bucket ON record (json_extract(doc, '$.product_id')) WHERE kind = 'usage';

-- Records that were removed, so that what comes late for them is not mistaken for something new.
CREATE TABLE removed (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (kind, id)
);

-- The newest sample of each report and id: the content of its retained topic, empty with seq 0 when the id is gone.
-- `letters` are the values that any of its samples has had: number, text or bool.
CREATE TABLE newest (
    stream INTEGER PRIMARY KEY,
    entity TEXT NOT NULL,
    report TEXT NOT NULL,
    id TEXT NOT NULL,
    ts INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    doc TEXT NOT NULL,
    seq INTEGER NOT NULL,
    letters TEXT NOT NULL DEFAULT '',
    UNIQUE (report, id)
);
CREATE INDEX newest_seq ON newest (seq);
CREATE INDEX newest_id ON newest (id);

-- The samples that the API may still show again, to know them when it does.
CREATE TABLE seen (
    stream INTEGER NOT NULL,
    ts INTEGER NOT NULL,
    hash INTEGER NOT NULL,
    PRIMARY KEY (stream, ts)
) WITHOUT ROWID;

-- Which product belongs to which terminal, as either of the two said.
CREATE TABLE product_link (
    product_id TEXT NOT NULL,
    imei TEXT NOT NULL,
    said_by TEXT NOT NULL,
    PRIMARY KEY (product_id, imei, said_by)
) WITHOUT ROWID;
CREATE INDEX product_link_imei ON product_link (imei);

-- Terminals whose relations have to be worked out again.
CREATE TABLE stale (imei TEXT PRIMARY KEY) WITHOUT ROWID;

-- What Home Assistant is to be told of: the wanted state, and what was sent of it.
-- `mark` grows with whatever may change the device; it is dirty until `done` has caught up. `topic` is retained
-- unless it is empty, `hash` is of what was sent there or says that it was cleared, `seq` how far the journal was
-- published then.
CREATE TABLE discovery (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    mark INTEGER NOT NULL DEFAULT 1,
    marked_at INTEGER NOT NULL DEFAULT 0,
    done INTEGER NOT NULL DEFAULT 0,
    topic TEXT NOT NULL DEFAULT '',
    hash BLOB NOT NULL DEFAULT x'',
    entities TEXT NOT NULL DEFAULT '{}',
    sent_at INTEGER NOT NULL DEFAULT 0,
    seq INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, id)
);
CREATE INDEX discovery_dirty ON discovery (kind, marked_at) WHERE mark > done;
CREATE INDEX discovery_gone ON discovery (sent_at) WHERE hash = x'676f6e65';
CREATE INDEX discovery_unsent ON discovery (kind) WHERE topic = '';

-- Events, samples, alerts and call states in the order in which they happened. Never updated.
-- AUTOINCREMENT, because a cursor would otherwise wait for ever once the table has been emptied.
CREATE TABLE journal (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    entity TEXT NOT NULL,
    id TEXT NOT NULL,
    what TEXT NOT NULL,
    name TEXT NOT NULL,
    ts INTEGER NOT NULL,
    body BLOB NOT NULL
);
CREATE INDEX journal_history ON journal (id, ts);
-- The console goes back through events, which are few among samples.
CREATE INDEX journal_events ON journal (seq) WHERE what IN ('added', 'changed', 'removed', 'components');

-- How far each output has got. `dropped` counts the rows that it never sent because they waited too long; `restore_from`
-- is the row after which such rows left retained topics that are still to be restored.
CREATE TABLE cursor (
    output TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    dropped INTEGER NOT NULL DEFAULT 0,
    restore_from INTEGER
);

-- Rows that an output set aside because they were always refused.
CREATE TABLE dead (
    output TEXT NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    topic TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (output, seq)
);

-- Classes of topics that the broker refuses: what of them is behind `seq` is still to be sent, whatever the cursor says.
-- `waiting` is about how many messages that are, `told` whether an alert has told of it.
CREATE TABLE lane (
    output TEXT NOT NULL,
    class TEXT NOT NULL,
    seq INTEGER NOT NULL,
    waiting INTEGER NOT NULL DEFAULT 0,
    told INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (output, class)
);

-- Retained topics that were set aside, and are tried again until they are right. `id` and `name` are of the row;
-- what is sent is what the topic should say by then.
CREATE TABLE owed (
    output TEXT NOT NULL,
    topic TEXT NOT NULL,
    id TEXT NOT NULL,
    name TEXT NOT NULL,
    tries INTEGER NOT NULL DEFAULT 0,
    reason TEXT NOT NULL,
    PRIMARY KEY (output, topic)
);
CREATE INDEX owed_tries ON owed (output, tries, topic);

-- What the poller has to remember of each call.
CREATE TABLE call (
    id TEXT PRIMARY KEY,
    fingerprint TEXT NOT NULL DEFAULT '',
    complete INTEGER NOT NULL DEFAULT 0,
    remapped INTEGER NOT NULL DEFAULT 0,
    last_poll INTEGER NOT NULL DEFAULT 0,
    last_success INTEGER NOT NULL DEFAULT 0,
    window_end INTEGER NOT NULL DEFAULT 0,
    horizon INTEGER NOT NULL DEFAULT 0,
    held_since INTEGER NOT NULL DEFAULT 0,
    released INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    polled INTEGER NOT NULL DEFAULT 0,
    succeeded INTEGER NOT NULL DEFAULT 0,
    -- Field -> since when values that vanished from many records are held, as JSON.
    values_held TEXT NOT NULL DEFAULT '{}'
);

-- What the forecast keeps of the use of a bucket or a pool, as JSON: amounts of days, and the newest report.
CREATE TABLE usage_days (
    kind TEXT NOT NULL,
    id TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (kind, id)
);

-- The shape of each call's answers, as JSON: paths and types, with steady times; no values.
CREATE TABLE answer_shape (
    call TEXT PRIMARY KEY,
    shape TEXT NOT NULL
);

-- What reports, usage and components had of ids that match no record: kept aside until the inventory knows the id.
-- `ts` is of the sample, 0 of a record; `kept_at` is when it came first, in steady time.
CREATE TABLE unmatched (
    call TEXT NOT NULL,
    id TEXT NOT NULL,
    ts INTEGER NOT NULL,
    kept_at INTEGER NOT NULL,
    hash BLOB NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (call, id, ts)
) WITHOUT ROWID;
CREATE INDEX unmatched_kept ON unmatched (call, kept_at);

-- What commands have set, in force over the configuration file. `value` is JSON.
CREATE TABLE setting (
    call TEXT NOT NULL,
    name TEXT NOT NULL,
    value TEXT NOT NULL,
    source TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (call, name)
);

-- The last retained command of each topic, so that its redelivery is known.
CREATE TABLE command (
    topic TEXT PRIMARY KEY,
    mark TEXT NOT NULL,
    at INTEGER NOT NULL
);

-- Polls that somebody asked for and that have not ended, so that they run after a restart. Of each topic the newest
-- retained command, and the newest other one. `sender` is the id that the command carried.
CREATE TABLE poll_request (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    call TEXT NOT NULL,
    remembered INTEGER NOT NULL,
    sender TEXT,
    at INTEGER NOT NULL,
    UNIQUE (topic, call, remembered)
);

-- Sparkplug's Edge Nodes by their numbers: the `bdSeq` of the last CONNECT, before it was sent.
CREATE TABLE edge_node (
    number INTEGER PRIMARY KEY,
    bd_seq INTEGER
);

-- Which Edge Node a Device of Sparkplug belongs to; it never changes while the Device exists.
CREATE TABLE edge_device (
    device TEXT PRIMARY KEY,
    number INTEGER NOT NULL
) WITHOUT ROWID;
