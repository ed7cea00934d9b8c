-- name: policy_by_text
SELECT * FROM policy_versions WHERE model = $model AND sha256 = $sha256;
-- name: add_policy
INSERT INTO policy_versions BY NAME SELECT
  $model AS model, (SELECT coalesce(max(version), 0) + 1 FROM policy_versions WHERE model = $model) AS version,
  $sha256 AS sha256, $path AS path, $yaml AS yaml, $now AS loaded_at, $now AS applied_at;
-- name: apply_policy
-- A text that is in force already keeps its time.
UPDATE policy_versions SET path = $path, applied_at = $now, withdrawn_at = NULL WHERE model = $model AND version = $version;
-- name: withdraw_policy
UPDATE policy_versions SET withdrawn_at = $now WHERE model = $model AND withdrawn_at IS NULL RETURNING version;
-- name: newest_applied
SELECT version FROM policy_versions WHERE model = $model ORDER BY applied_at DESC, version DESC LIMIT 1;
-- name: all_policies
SELECT * FROM policy_versions ORDER BY model, version;
