-- name: add_run
INSERT INTO runs (run_id, model, policy_version, state, trigger, start_from, attempts, created_at)
VALUES ($run_id, $model, $policy_version, 'queued', $trigger, $start_from, 0, $now);
-- name: get_run
SELECT * FROM runs WHERE run_id = $run_id;
-- name: list_runs
-- Newest first.
SELECT * FROM runs WHERE ($model IS NULL OR model = $model) AND ($seen::VARCHAR[] IS NULL OR list_contains($seen::VARCHAR[], model))
ORDER BY created_at DESC, run_id DESC LIMIT $limit;
-- name: runs_in_state
-- Oldest first.
SELECT * FROM runs WHERE state = $state ORDER BY created_at, run_id;
-- name: active_run
-- The one run of an alias that is not final.
SELECT * FROM runs
WHERE model = $model AND state NOT IN ('accepted', 'rejected', 'inconclusive', 'failed', 'cancelled')
ORDER BY created_at LIMIT 1;
-- name: last_finished_run
SELECT * FROM runs WHERE model = $model AND finished_at IS NOT NULL ORDER BY finished_at DESC, run_id DESC LIMIT 1;
-- name: claimable_run
-- A run waits in `building` until its snapshot is stored.
SELECT * FROM runs WHERE state = $state AND (state <> 'building' OR snapshot_id IS NOT NULL)
ORDER BY created_at, run_id LIMIT 1;
-- name: move_run
-- started_at is when the run first left the queue.
UPDATE runs SET state = $state, reason = $reason,
  started_at = CASE WHEN $state = 'building' THEN coalesce(started_at, $now) ELSE started_at END,
  finished_at = CASE WHEN $final THEN $now ELSE NULL END,
  pid = CASE WHEN $state = 'training' THEN pid ELSE NULL END
WHERE run_id = $run_id;
-- name: set_snapshot
UPDATE runs SET snapshot_id = $snapshot_id WHERE run_id = $run_id;
-- name: set_progress
UPDATE runs SET progress = $progress WHERE run_id = $run_id;
-- name: set_process
UPDATE runs SET pid = $pid, directory = $directory WHERE run_id = $run_id;
-- name: begin_attempt
-- One that got further than all before it was not in vain.
UPDATE runs SET attempts = attempts + 1,
  stalled = CASE WHEN coalesce((progress ->> 'step')::INTEGER, 0) > coalesce(furthest_step, 0) THEN 1 ELSE coalesce(stalled, attempts) + 1 END,
  furthest_step = greatest(coalesce(furthest_step, 0), coalesce((progress ->> 'step')::INTEGER, 0)), micro_batch = $micro_batch, directory = $directory, pid = NULL
WHERE run_id = $run_id;
