-- name: count_examples
SELECT count(*) AS examples FROM examples_as_of($as_of, only_model := $model, only_tenant := $tenant);
-- name: export_examples
COPY (
  SELECT * FROM examples_as_of($as_of, only_model := $model, only_tenant := $tenant) ORDER BY "time", id, tenant
) TO $path (FORMAT parquet, COMPRESSION zstd);
-- name: export_judged
COPY (
  SELECT * FROM judged_examples($since, $as_of, only_model := $model) ORDER BY "time", id, tenant
) TO $path (FORMAT parquet, COMPRESSION zstd);
-- name: export_touched
COPY (FROM touched_interactions($since, $as_of, $model)) TO $path (FORMAT parquet, COMPRESSION zstd);
-- name: example_columns
SELECT sha256(string_agg(column_name || ' ' || column_type, ',')) AS digest
FROM (DESCRIBE SELECT * FROM judged_examples(now(), now()));
-- name: seal_of
SELECT sealed_to, columns FROM example_seals WHERE model = $model;
-- name: files_of
SELECT day, path FROM example_files WHERE model = $model ORDER BY day;
-- name: all_files
SELECT path FROM example_files;
-- name: first_ingested
SELECT min(ingested_at) AS first FROM interactions WHERE model = $model;
-- name: days_in
SELECT DISTINCT ingested_at::DATE AS day FROM read_parquet($paths) ORDER BY day;
-- name: days_touched
SELECT DISTINCT ingested_at::DATE AS day FROM read_parquet($paths) WHERE id IN (FROM read_parquet($touched)) ORDER BY day;
-- name: write_day
COPY (
  SELECT * FROM read_parquet($changed) WHERE ingested_at::DATE = $day ORDER BY "time", id, tenant
) TO $path (FORMAT parquet, COMPRESSION zstd);
-- name: rewrite_day
COPY (
  SELECT * FROM (
    FROM read_parquet($old) WHERE id NOT IN (FROM read_parquet($touched))
    UNION ALL BY NAME
    FROM read_parquet($changed) WHERE ingested_at::DATE = $day
  ) ORDER BY "time", id, tenant
) TO $path (FORMAT parquet, COMPRESSION zstd);
-- name: forget_files
DELETE FROM example_files WHERE model = $model AND day IN (SELECT unnest($days::DATE[]));
-- name: add_file
INSERT INTO example_files VALUES ($model, $day, $path, $examples);
-- name: put_seal
INSERT INTO example_seals VALUES ($model, $sealed_to, $columns)
ON CONFLICT DO UPDATE SET sealed_to = excluded.sealed_to, columns = excluded.columns;
-- name: drop_files
DELETE FROM example_files WHERE model = $model;
-- name: drop_all_seals
DELETE FROM example_seals;
-- name: drop_all_files
DELETE FROM example_files;
-- name: count_unsealing
UPDATE example_unsealings SET times = times + 1;
-- name: unsealings
SELECT times FROM example_unsealings;
