-- name: count_examples
SELECT count(*) AS examples FROM examples_as_of($as_of, only_model := $model, only_tenant := $tenant);
-- name: export_examples
COPY (
  SELECT * FROM examples_as_of($as_of, only_model := $model, only_tenant := $tenant) ORDER BY "time", id, tenant
) TO $path (FORMAT parquet, COMPRESSION zstd);
