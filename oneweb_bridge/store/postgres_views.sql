-- What the views of PostgreSQL read documents with: a value of another type than its column is NULL, because a cast
-- that fails would end the query of whoever reads the view. Their bodies are written into the views by the planner.

-- A document; of a text with a NUL, which PostgreSQL cannot hold, the NUL is replaced. Pairs of backslashes are put aside
-- meanwhile, as a character that never stands unescaped in JSON: behind them \u0000 is a text.
CREATE OR REPLACE FUNCTION oneweb.read_document(document text) RETURNS jsonb LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN strpos(document, '\u0000') = 0 THEN document::jsonb
    ELSE replace(replace(replace(document, '\\', chr(1)), '\u0000', '\ufffd'), chr(1), '\\')::jsonb END
$$;

CREATE OR REPLACE FUNCTION oneweb.read_time(value text) RETURNS timestamptz LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN value ~ '^[1-9]\d{3}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])T([01]\d|2[0-3]):[0-5]\d:[0-5]\d(\.\d+|)Z$'
    THEN value::timestamptz END
$$;

CREATE OR REPLACE FUNCTION oneweb.read_real(value jsonb) RETURNS double precision LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(value) = 'number' THEN value::double precision END
$$;

CREATE OR REPLACE FUNCTION oneweb.read_integer(value jsonb) RETURNS bigint LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(value) <> 'number' THEN NULL
    WHEN value::numeric BETWEEN -9223372036854775808 AND 9223372036854775807 THEN value::bigint END
$$;

CREATE OR REPLACE FUNCTION oneweb.read_boolean(value jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN jsonb_typeof(value) = 'boolean' THEN value::boolean END
$$;
