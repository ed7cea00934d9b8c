-- name: any_tombstones
SELECT EXISTS (FROM tombstones WHERE until > $now) AS found;
-- name: barred_interactions
-- Rows of a chunk from an erased person, by user or conversation. Distinct values are hashed once.
WITH said AS (
  SELECT "row", tenant, 'user' AS kind, "user" AS "value" FROM chunk_rows
  UNION ALL SELECT "row", tenant, 'user', unit FROM chunk_rows WHERE unit_kind = 'user'
  UNION ALL SELECT "row", tenant, 'conversation', conversation FROM chunk_rows
),
barred AS (
  SELECT s.kind, s."value", t.tenant
  FROM (SELECT DISTINCT kind, "value" FROM said WHERE "value" IS NOT NULL) s
  JOIN tombstones t ON t.kind = s.kind AND t."key" = keyed($secret, s.kind, s."value")
  WHERE t.until > $now
)
SELECT DISTINCT s."row" FROM said s JOIN barred b ON b.kind = s.kind AND b."value" = s."value"
  AND (b.tenant IS NULL OR s.tenant IS NULL OR b.tenant = s.tenant) ORDER BY 1;
-- name: barred_feedback
-- Feedback from an erased person, or on one of their answers.
WITH said AS (
  SELECT "row", tenant, 'user' AS kind, "user" AS "value" FROM chunk_rows
  UNION ALL SELECT "row", tenant, 'interaction', interaction FROM chunk_rows
),
barred AS (
  SELECT s.kind, s."value", t.tenant
  FROM (SELECT DISTINCT kind, "value" FROM said WHERE "value" IS NOT NULL) s
  JOIN tombstones t ON t.kind = s.kind AND t."key" = keyed($secret, s.kind, s."value")
  WHERE t.until > $now
)
SELECT DISTINCT s."row" FROM said s JOIN barred b ON b.kind = s.kind AND b."value" = s."value"
  AND (b.tenant IS NULL OR s.tenant IS NULL OR b.tenant = s.tenant) ORDER BY 1;
-- name: barred_words
-- The words that name an erased person, or a conversation or interaction of theirs.
SELECT DISTINCT w.word FROM (SELECT unnest($words) AS word) w CROSS JOIN (VALUES ('user'), ('conversation'), ('interaction')) k(kind)
JOIN tombstones t ON t.kind = k.kind AND t."key" = keyed($secret, k.kind, w.word) WHERE t.until > $now;
-- name: not_buried
-- Events that came over HTTP have no place in a log, so they never count as buried.
SELECT c.* FROM chunk_rows c ANTI JOIN (FROM dead_letters WHERE reason = $reason AND topic <> '') seen
ON c.topic = seen.topic AND c."partition" = seen."partition" AND c.position = seen.position AND c.batch_index = seen.batch_index;
