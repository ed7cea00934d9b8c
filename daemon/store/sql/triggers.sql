-- name: crons_of
-- A fire with a run no longer waits, even where a crash came before `settle_crons`.
SELECT j.job, j.fired_at, j.waiting AND NOT EXISTS (
  FROM runs r WHERE r.model = j.model AND json_extract_string(r.trigger, '$.kind') = 'cron'
    AND json_extract_string(r.trigger, '$.fired_at')::TIMESTAMPTZ >= j.fired_at
) AS waiting
FROM fired_jobs j WHERE j.model = $model ORDER BY j.job;
-- name: begin_cron
-- Fires before a job was first seen do not count.
INSERT OR IGNORE INTO fired_jobs VALUES ($model, $job, $now, false);
-- name: fire_cron
UPDATE fired_jobs SET fired_at = $now, waiting = true WHERE model = $model AND job = $job AND fired_at < $now;
-- name: settle_crons
UPDATE fired_jobs SET waiting = false WHERE model = $model AND waiting;
-- name: drop_crons
DELETE FROM fired_jobs WHERE model = $model AND NOT list_contains($kept, job);
-- name: cron_models
SELECT DISTINCT model FROM fired_jobs ORDER BY model;
-- name: newest_snapshot
SELECT as_of, policy_version FROM seen_snapshots($model) ORDER BY as_of DESC, snapshot_id DESC LIMIT 1;
-- name: count_new
-- Answers with feedback of a kind in use that became known after $since and no later than $until.
SELECT count(DISTINCT i.id) AS answers
FROM feedback f JOIN interactions i ON i.id = f.interaction AND (f.tenant IS NULL OR i.tenant IS NULL OR f.tenant = i.tenant)
WHERE i.model = $model AND greatest(f.ingested_at, i.ingested_at) > $since AND f.ingested_at <= $until
  AND ((f.kind = 'correction' AND $corrections) OR (f.kind = 'rating' AND f."value" > 0 AND $ratings));
-- name: count_judged
-- The latest of a kind per answer and person, as everywhere; a missing person stands for its token.
WITH said AS (
  SELECT i.id, f.kind, f."value"
  FROM feedback f JOIN interactions i ON i.id = f.interaction AND (f.tenant IS NULL OR i.tenant IS NULL OR f.tenant = i.tenant)
  WHERE i.model = $model AND i.ingested_at > $since AND f.kind IN ('rating', 'correction')
  QUALIFY row_number() OVER (
    PARTITION BY i.id, f.kind, f."user", CASE WHEN f."user" IS NULL THEN f.principal END
    ORDER BY f.effective_at DESC, f.position DESC, f.batch_index DESC, f.id DESC
  ) = 1
)
SELECT count(DISTINCT id) AS total, count(DISTINCT id) FILTER (is_negative(kind, "value")) AS negative FROM said;
