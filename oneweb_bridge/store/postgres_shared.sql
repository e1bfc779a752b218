-- What all instances share: the schema oneweb. Its tables that hold the instances' parts are made by postgres_schema.py.

CREATE SCHEMA IF NOT EXISTS oneweb;

CREATE TABLE oneweb.version (version bigint NOT NULL);

-- Who may do anything for an instance: see lease.py. Times are those of the server's clock.
CREATE TABLE oneweb.lease (
    instance text COLLATE "C" PRIMARY KEY,
    worker text NOT NULL,
    holder text NOT NULL,
    epoch bigint NOT NULL,
    since timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    -- Makes holder and epoch parts of a key: only what changes them conflicts with FOR KEY SHARE, and a renewal does not.
    UNIQUE (instance, holder, epoch)
);

CREATE VIEW oneweb.holders AS
SELECT instance, worker, holder, epoch, since, expires, expires > clock_timestamp() AS held FROM oneweb.lease;

-- The sign of life of each worker, with the instances that it holds, or waits for while it may hold more.
CREATE TABLE oneweb.worker (
    holder text PRIMARY KEY,
    worker text NOT NULL,
    seen timestamptz NOT NULL,
    instances text[] NOT NULL
);

CREATE VIEW oneweb.workers AS SELECT worker, holder, seen FROM oneweb.worker;

-- A member of a JSON document by SQLite's name and with its meaning, as far as the store uses it: texts. A text with a
-- NUL, which PostgreSQL cannot hold, counts as unknown.
CREATE FUNCTION oneweb.json_extract(doc text, path text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    IF strpos(doc, '\u0000') = 0 THEN
        RETURN doc::json #>> string_to_array(substr(path, 3), '.');
    END IF;
    BEGIN
        RETURN doc::json #>> string_to_array(substr(path, 3), '.');
    EXCEPTION WHEN untranslatable_character THEN
        RETURN NULL;
    END;
END
$$;

-- The values of a flat document and of the lists in it, as SQLite's json_tree names them.
CREATE FUNCTION oneweb.json_tree(doc text) RETURNS TABLE (key text, path text, atom text) LANGUAGE sql IMMUTABLE AS $$
    SELECT member.key, '$', member.value #>> '{}' FROM pg_catalog.json_each(doc::json) AS member
    WHERE json_typeof(member.value) IN ('string', 'number', 'boolean')
    UNION ALL
    SELECT (element.number - 1)::text, '$.' || member.key, element.value
    FROM pg_catalog.json_each(doc::json) AS member,
    json_array_elements_text(CASE WHEN json_typeof(member.value) = 'array' THEN member.value ELSE '[]' END)
        WITH ORDINALITY AS element (value, number)
$$;
