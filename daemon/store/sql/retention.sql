-- name: last_run
SELECT ran_at FROM retention WHERE kind = $kind;
-- name: note_run
INSERT INTO retention VALUES ($kind, $now, $removed) ON CONFLICT DO UPDATE SET ran_at = excluded.ran_at, removed = retention.removed + excluded.removed;
-- name: drop_feedback_of_old
-- All feedback on an interaction is deleted with it.
DELETE FROM feedback WHERE interaction IN (SELECT id FROM interactions WHERE ingested_at < $before ORDER BY rowid LIMIT $limit);
-- name: drop_old_interactions
DELETE FROM interactions WHERE rowid IN (SELECT rowid FROM interactions WHERE ingested_at < $before ORDER BY rowid LIMIT $limit);
-- name: drop_old_feedback
DELETE FROM feedback WHERE rowid IN (SELECT rowid FROM feedback WHERE ingested_at < $before ORDER BY rowid LIMIT $limit);
-- name: drop_old_dead_letters
DELETE FROM dead_letters WHERE rowid IN (SELECT rowid FROM dead_letters WHERE received_at < $before ORDER BY rowid LIMIT $limit);
-- name: old_snapshots
-- Snapshots of a version in use stay: their rows show whose its probes are.
SELECT s.path FROM snapshots s WHERE s.created_at < $before
  AND NOT EXISTS (FROM adapters a WHERE a.snapshot_id = s.snapshot_id AND a.state IN ('candidate', 'canary', 'live', 'last_good'))
  AND NOT EXISTS (FROM runs r WHERE r.snapshot_id = s.snapshot_id AND r.finished_at IS NULL)
ORDER BY s.created_at, s.path;
-- name: old_runs
SELECT directory AS path FROM runs WHERE finished_at < $before AND directory IS NOT NULL ORDER BY finished_at, run_id;
