-- name: put_rollout
INSERT OR REPLACE INTO rollouts BY NAME SELECT
  $rollout_id AS rollout_id, $model AS model, $candidate AS candidate, $previous AS previous, $run_id AS run_id, $state AS state,
  $step AS step, $paused AS paused, $withdrawn AS withdrawn, $approved_by AS approved_by, $override_reason AS override_reason,
  $waivers AS waivers, $policy_version AS policy_version, $created_at AS created_at, $step_started_at AS step_started_at,
  $live_at AS live_at, $finished_at AS finished_at, $frozen AS frozen, $evidence AS evidence;
-- name: set_evidence
UPDATE rollouts SET evidence = $evidence WHERE rollout_id = $rollout_id;
-- name: get_rollout
SELECT * FROM rollouts WHERE rollout_id = $rollout_id;
-- name: list_rollouts
-- Newest first.
SELECT * FROM rollouts WHERE ($model IS NULL OR model = $model) AND ($seen::VARCHAR[] IS NULL OR list_contains($seen::VARCHAR[], model))
ORDER BY created_at DESC, rollout_id DESC LIMIT $limit;
-- name: unfinished_rollouts
-- Oldest first; live ones too.
SELECT * FROM rollouts WHERE state NOT IN ('superseded', 'rolled_back', 'aborted') ORDER BY created_at, rollout_id;
-- name: rollouts_of
SELECT * FROM rollouts WHERE candidate = $candidate ORDER BY created_at DESC, rollout_id DESC;
