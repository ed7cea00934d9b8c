-- name: add_restore
INSERT INTO restores BY NAME SELECT $now AS restored_at, $as_of AS as_of, $source AS source, $offsets AS offsets;
-- name: newest_restore
SELECT * FROM restores ORDER BY restored_at DESC LIMIT 1;
-- name: release_restores
UPDATE restores SET released_at = $now, released_by = $actor, reason = $reason, findings = $findings WHERE released_at IS NULL;
-- name: set_caught_up
UPDATE restores SET caught_up_at = $now WHERE caught_up_at IS NULL;
-- name: look_back
-- Rows stored before the oldest backup that is still catching up may come again.
SELECT min(as_of) AS as_of FROM restores WHERE caught_up_at IS NULL;
-- name: raise_floor
INSERT INTO number_floors VALUES ($model, $number) ON CONFLICT DO UPDATE SET number = greatest(number, excluded.number);
-- name: move_adapter_paths
UPDATE adapters SET path = $after || substr(path, len($before) + 1) WHERE starts_with(path, $before || '/');
-- name: move_snapshot_paths
UPDATE snapshots SET path = $after || substr(path, len($before) + 1) WHERE starts_with(path, $before || '/');
-- name: move_run_paths
UPDATE runs SET directory = $after || substr(directory, len($before) + 1) WHERE starts_with(directory, $before || '/');
-- name: unfinished_runs
-- Their files are in no backup. A queued one has none yet.
SELECT run_id FROM runs WHERE state <> 'queued' AND NOT list_contains($final, state) ORDER BY run_id;
