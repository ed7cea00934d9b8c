-- name: add_adapter
INSERT INTO adapters BY NAME SELECT
  $name AS name, $model AS model, $number AS number, $content_hash AS content_hash, $path AS path, $base_digest AS base_digest,
  'candidate' AS state, $run_id AS run_id, $parent AS parent, $snapshot_id AS snapshot_id, $now AS created_at;
-- name: get_adapter
SELECT * FROM adapters WHERE name = $name;
-- name: adapter_of_run
SELECT * FROM adapters WHERE run_id = $run_id;
-- name: list_adapters
-- Newest first.
SELECT * FROM adapters WHERE ($model IS NULL OR model = $model) AND ($seen::VARCHAR[] IS NULL OR list_contains($seen::VARCHAR[], model))
ORDER BY created_at DESC, number DESC;
-- name: last_number
-- Also above what was seen elsewhere when the store came back from a backup.
SELECT greatest(
  coalesce((SELECT max(number) FROM adapters WHERE model = $model), 0),
  coalesce((SELECT number FROM number_floors WHERE model = $model), 0)
) AS number;
-- name: move_adapter
UPDATE adapters SET state = $state WHERE name = $name;
-- name: set_run_adapter
UPDATE runs SET adapter = $name WHERE run_id = $run_id;
