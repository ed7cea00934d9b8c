-- Facts for the rollout's guard. Counted in SQL, so that Python gets one row per (metric, arm, weight), never an event.
-- Only rows from the gateway's own principal count, and only those served while both arms had a share.
-- name: tallies
-- At most one event of a kind per unit, the first (D8). A negative counts once its request is `maturity` old, and only if
-- it came within that age (D12), so that slow feedback is no advantage for an arm. $watching compares after promotion.
WITH served AS (
  SELECT id, "time", unit, weight, status, latency_ms, ttft_ms, "usage".completion_tokens AS tokens,
    (arm = CASE WHEN $watching THEN 'live' ELSE 'canary' END) AS on_canary
  FROM interactions
  WHERE rollout = $rollout AND "time" >= $since AND trusted AND unit IS NOT NULL AND weight > 0 AND weight < 1
    AND CASE WHEN $watching THEN arm = 'holdback' OR (arm = 'live' AND adapter = $candidate)
        ELSE arm = 'canary' OR (arm = 'live' AND adapter IS DISTINCT FROM $candidate) END
), negatives AS (
  SELECT interaction, effective_at FROM feedback
  WHERE trusted AND ingested_at >= $since AND is_negative(kind, "value")
), limits AS (
  SELECT unnest($buckets::INTEGER[]) AS bucket, unnest($limits::DOUBLE[]) AS ms_per_token
), counted AS (
  SELECT 'negative' AS metric, id, "time", unit, weight, on_canary FROM served s
  WHERE "time" <= $now - $maturity::INTERVAL AND EXISTS (
    SELECT 1 FROM negatives n WHERE n.interaction = s.id AND n.effective_at <= s."time" + $maturity::INTERVAL)
  UNION ALL BY NAME
  SELECT 'error' AS metric, id, "time", unit, weight, on_canary FROM served WHERE status IN ('error', 'timeout')
  UNION ALL BY NAME
  SELECT 'latency' AS metric, id, "time", unit, weight, on_canary
  FROM served JOIN limits ON limits.bucket = floor(log2(tokens))::INTEGER
  WHERE status = 'ok' AND tokens >= 2 AND (latency_ms - ttft_ms) / (tokens - 1) > ms_per_token
  UNION ALL BY NAME
  SELECT 'assignment' AS metric, id, "time", unit, weight, on_canary FROM served WHERE "time" <= $now - $settle::INTERVAL
), first AS (
  SELECT * FROM counted QUALIFY row_number() OVER (PARTITION BY metric, unit ORDER BY "time", id) = 1
)
SELECT metric, on_canary, weight, count(*) AS events FROM first GROUP BY ALL ORDER BY ALL;
-- name: exposure
-- First-token times are medians, for the report only: a canary's colder prefix cache is not a worse model (D12).
WITH served AS (
  SELECT unit, "time", ttft_ms, (arm = CASE WHEN $watching THEN 'live' ELSE 'canary' END) AS on_canary
  FROM interactions
  WHERE rollout = $rollout AND "time" >= $since AND trusted AND unit IS NOT NULL
    AND CASE WHEN $watching THEN arm = 'holdback' OR (arm = 'live' AND adapter = $candidate)
        ELSE arm = 'canary' OR (arm = 'live' AND adapter IS DISTINCT FROM $candidate) END
)
SELECT count(DISTINCT unit) FILTER (NOT on_canary) AS units_live, count(DISTINCT unit) FILTER (on_canary) AS units_canary,
  count(DISTINCT unit) FILTER (on_canary AND "time" >= $step_started_at) AS units_this_step,
  median(ttft_ms) FILTER (NOT on_canary) AS ttft_ms_live, median(ttft_ms) FILTER (on_canary) AS ttft_ms_canary,
  (SELECT max(ingested_at) FROM interactions WHERE model = $model AND ingested_at >= $since) AS last_event_at
FROM served;
-- name: fuse
-- Hard errors in a row, back from the canary's newest answer, and live's answers meanwhile.
WITH answered AS (
  SELECT "time", arm, status IN ('error', 'timeout') AS hard FROM interactions
  WHERE rollout = $rollout AND "time" >= $armed_at AND trusted AND arm IN ('canary', 'live') AND status IN ('ok', 'error', 'timeout')
), canary_ok AS (
  SELECT max("time") AS last_at FROM answered WHERE arm = 'canary' AND NOT hard
), broken AS (
  SELECT count(*) AS errors, min("time") AS first_at FROM answered, canary_ok
  WHERE arm = 'canary' AND hard AND ("time" > last_at OR last_at IS NULL)
)
SELECT any_value(errors) AS canary_errors_in_a_row, count(*) FILTER (arm = 'live' AND NOT hard AND "time" >= first_at) AS live_ok_since,
  count(*) FILTER (arm = 'live' AND hard AND "time" >= first_at) AS live_errors_since
FROM broken LEFT JOIN answered ON true;
-- name: latency_limits
-- Live's p95 of the time per output token, per length class, over its newest streamed answers: only streams show when decoding began.
WITH newest AS (
  SELECT floor(log2("usage".completion_tokens))::INTEGER AS bucket,
    (latency_ms - ttft_ms) / ("usage".completion_tokens - 1) AS ms_per_token
  FROM interactions
  WHERE model = $model AND adapter IS NOT DISTINCT FROM $adapter AND trusted AND status = 'ok' AND ttft_ms IS NOT NULL
    AND latency_ms IS NOT NULL AND "usage".completion_tokens >= 2 AND "time" >= $since
  ORDER BY "time" DESC LIMIT 20000
)
SELECT bucket, quantile_cont(ms_per_token, 0.95) AS ms_per_token FROM newest
GROUP BY bucket HAVING count(*) >= $at_least ORDER BY bucket;
-- name: open_halts
SELECT reason FROM halts WHERE cleared_at IS NULL ORDER BY halted_at;
