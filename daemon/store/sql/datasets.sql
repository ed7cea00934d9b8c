-- name: add_snapshot
INSERT OR REPLACE INTO snapshots VALUES (
  $snapshot_id, $model, $policy_version, $as_of, $content_hash, $path, $train_rows, $holdout_rows, $golden_rows,
  $holdout_version, $created_at, $manifest
);
-- name: drop_snapshot_rows
DELETE FROM snapshot_rows WHERE snapshot_id = $snapshot_id;
-- name: add_snapshot_rows
INSERT INTO snapshot_rows BY NAME SELECT $snapshot_id AS snapshot_id, * FROM lineage;
-- name: rows_without_event
SELECT EXISTS (FROM snapshot_rows r ANTI JOIN interactions i ON i.id = r.interaction WHERE r.snapshot_id = $snapshot_id)
  OR EXISTS (
    FROM snapshot_rows r ANTI JOIN feedback f ON f.id = r.feedback AND f.interaction = r.interaction WHERE r.snapshot_id = $snapshot_id
  ) AS found;
-- name: snapshot_ids
SELECT snapshot_id FROM snapshots;
-- name: get_snapshot
SELECT * FROM snapshots WHERE snapshot_id = $snapshot_id;
-- name: list_snapshots
SELECT * FROM snapshots WHERE model = $model ORDER BY created_at DESC, snapshot_id;
-- name: seen_feedback
-- The feedback in the newest snapshot that counts as seen, on either side.
SELECT feedback FROM snapshot_rows WHERE snapshot_id = (
  SELECT snapshot_id FROM seen_snapshots($model) ORDER BY as_of DESC, snapshot_id DESC LIMIT 1
);
-- name: group_members
SELECT member, "group", side, holdout_version FROM example_groups WHERE model = $model;
-- name: add_group_members
INSERT OR REPLACE INTO example_groups
SELECT $model, member, "group", side, holdout_version, $now FROM assigned;
-- name: open_holdouts
SELECT version, scored FROM holdouts WHERE model = $model AND state = 'open' ORDER BY version;
-- name: newest_holdout
SELECT coalesce(max(version), 0) AS version FROM holdouts WHERE model = $model;
-- name: add_holdout
INSERT INTO holdouts VALUES ($model, $version, 'open', 0, $now, NULL);
-- name: close_holdout
UPDATE holdouts SET state = 'closed', closed_at = coalesce(closed_at, $now) WHERE model = $model AND version = $version;
-- name: get_score
SELECT k FROM holdout_scores WHERE model = $model AND suite = $suite AND candidate = $candidate;
-- name: count_scores
SELECT count(*) AS scored FROM holdout_scores WHERE model = $model AND suite = $suite;
-- name: add_score
INSERT INTO holdout_scores VALUES ($model, $suite, $candidate, $k, $now);
-- name: count_holdout
UPDATE holdouts SET scored = $k, state = CASE WHEN $k >= $closes_after THEN 'closed' ELSE state END,
  closed_at = CASE WHEN $k >= $closes_after THEN $now ELSE closed_at END
WHERE model = $model AND version = $version;
