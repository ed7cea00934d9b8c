-- The store is attached as `store`, its copy as `rewritten`; `a_table` is replaced by the table's name.
-- name: is_attached
FROM duckdb_databases() WHERE database_name = 'rewritten';
-- name: tables
-- Tables with a time of ingestion only grow during a copy.
SELECT table_name, EXISTS (
  FROM duckdb_columns() c WHERE c.database_name = t.database_name AND c.table_name = t.table_name AND c.column_name = 'ingested_at'
) AS grows
FROM duckdb_tables() t WHERE database_name = 'store' AND NOT internal ORDER BY table_name;
-- name: copy_schema
COPY FROM DATABASE store TO rewritten (SCHEMA);
-- name: copy_table
INSERT INTO rewritten.a_table SELECT * FROM store.a_table;
-- name: copy_newer
-- Rows stored since the first copy: every transaction has a later time than those before it.
INSERT INTO rewritten.a_table SELECT * FROM store.a_table
WHERE ingested_at > coalesce((SELECT max(ingested_at) FROM rewritten.a_table), '-infinity'::TIMESTAMPTZ);
-- name: count_both
SELECT (SELECT count(*) FROM store.a_table), (SELECT count(*) FROM rewritten.a_table);
-- name: empty_table
DELETE FROM rewritten.a_table;
-- name: checkpoint
CHECKPOINT rewritten;
-- name: checkpoint_store
CHECKPOINT store;
-- name: detach
DETACH rewritten;
-- name: leave_store
USE memory;
-- name: detach_store
DETACH store;
-- name: use_store
USE store;
