-- What status, watch and /metrics show. Every statement reads counters or small tables; none scans event texts.
-- name: events
SELECT (SELECT count(*) FROM interactions) AS interactions, (SELECT count(*) FROM feedback) AS feedback,
  (SELECT count(*) FROM dead_letters) AS dead_letters,
  (SELECT count(*) FROM dead_letters WHERE published_at IS NULL) AS unpublished_letters,
  (SELECT max(last_interaction_at) FROM ingest_totals) AS last_interaction_at, (SELECT max(last_feedback_at) FROM ingest_totals) AS last_feedback_at,
  (SELECT count(*) FROM orphan_feedback) AS orphans, (SELECT until FROM orphan_count) AS orphans_until,
  (SELECT feedback FROM unscaled_ratings) AS unscaled_ratings,
  (SELECT coalesce(sum(duplicates), 0)::BIGINT FROM ingest_totals) AS duplicates,
  (SELECT count(*) FROM interactions WHERE ingested_at > $now - INTERVAL 1 MINUTE)
    + (SELECT count(*) FROM feedback WHERE ingested_at > $now - INTERVAL 1 MINUTE) AS last_minute;
-- name: dead_letters_by_reason
SELECT reason, letters AS "count" FROM dead_letter_totals ORDER BY reason;
-- name: totals_by_source
-- Replays and imports have a source of their own each; what stands before the colon says which kind.
SELECT split_part(source, ':', 1) AS source, sum(interactions)::BIGINT AS interactions, sum(feedback)::BIGINT AS feedback,
  sum(duplicates)::BIGINT AS duplicates
FROM ingest_totals GROUP BY ALL ORDER BY ALL;
-- name: files
SELECT path FROM duckdb_databases() WHERE NOT internal AND path IS NOT NULL;
-- name: offsets
SELECT source, topic, "partition", next_offset, record_at, updated_at FROM offsets WHERE source IN ('kafka', 'http') ORDER BY ALL;
-- name: open_halts
SELECT halted_at, reason, detail FROM halts WHERE cleared_at IS NULL ORDER BY halted_at;
-- name: runs_by_state
SELECT model, state, count(*) AS "count" FROM runs GROUP BY ALL ORDER BY ALL;
-- name: newest_runs
SELECT * FROM runs QUALIFY row_number() OVER (PARTITION BY model ORDER BY created_at DESC, run_id DESC) = 1 ORDER BY model;
-- name: adapters_by_state
SELECT model, state, count(*) AS "count" FROM adapters GROUP BY ALL ORDER BY ALL;
-- name: adapters_in_use
SELECT model, state, name FROM adapters WHERE state IN ('live', 'last_good', 'canary') ORDER BY ALL;
-- name: evaluations_by_verdict
SELECT model, verdict, count(*) AS "count" FROM evaluations GROUP BY ALL ORDER BY ALL;
-- name: newest_evaluations
SELECT * FROM evaluations QUALIFY row_number() OVER (PARTITION BY model ORDER BY created_at DESC, evaluation_id DESC) = 1 ORDER BY model;
-- name: rollouts_by_state
SELECT model, state, count(*) AS "count" FROM rollouts GROUP BY ALL ORDER BY ALL;
-- name: newest_rollouts
SELECT * FROM rollouts QUALIFY row_number() OVER (PARTITION BY model ORDER BY created_at DESC, rollout_id DESC) = 1 ORDER BY model;
-- name: newest_table
SELECT epoch, published, reason, created_at FROM route_tables ORDER BY epoch DESC LIMIT 1;
-- name: evaluations_of
SELECT * FROM evaluations WHERE ($model IS NULL OR model = $model) AND ($run_id IS NULL OR run_id = $run_id)
  AND ($seen::VARCHAR[] IS NULL OR list_contains($seen::VARCHAR[], model))
ORDER BY created_at DESC, evaluation_id DESC LIMIT $limit;
-- name: receipts_of
SELECT * FROM receipts WHERE adapter = $adapter ORDER BY created_at DESC;
-- name: history
SELECT from_state, to_state, actor, reason, evidence, happened_at FROM transitions
WHERE subject_kind = $kind AND subject = $subject ORDER BY happened_at;
-- name: traffic
-- Units, requests and negatives of the gateway's own rows; the guard's unit is counted once (D8).
WITH seen AS (
  SELECT i.id, coalesce(i.unit, i.id) AS unit FROM interactions i
  WHERE i.model = $model AND i.ingested_at > $since AND i.trusted
), negative AS (
  SELECT DISTINCT s.unit FROM seen s JOIN feedback f ON f.interaction = s.id
  WHERE f.ingested_at > $since AND ((f.kind = 'rating' AND f."value" < 0) OR f.kind = 'correction')
)
SELECT (SELECT count(*) FROM seen) AS requests, (SELECT count(DISTINCT unit) FROM seen) AS units,
  (SELECT count(*) FROM negative) AS negative_units,
  (SELECT min(ingested_at) FROM interactions WHERE model = $model AND ingested_at > $since AND trusted) AS first_at;
-- name: feedback_delays
SELECT coalesce(i.arm, 'live') AS arm, count(*) AS "count", avg(epoch(f.effective_at) - epoch(i."time")) AS mean_s
FROM feedback f JOIN interactions i ON i.id = f.interaction
WHERE i.model = $model AND f.ingested_at > $since AND i.ingested_at > $since - INTERVAL 7 DAY AND f.kind IN ('rating', 'correction')
GROUP BY ALL ORDER BY ALL;
