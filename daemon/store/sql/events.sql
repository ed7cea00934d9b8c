-- name: fresh_interactions
-- Rows of the chunk that are not stored yet: the first of each key, less those stored since $since. The key holds the
-- tenant and the trust in the sender, so that no sender can take another's id. The id range lets zone maps prune, and so do
-- $known and $first: see IdRanges.
SELECT c."row" FROM chunk_rows c ANTI JOIN (
  SELECT id, coalesce(tenant, '') AS tenant, trusted FROM interactions
  WHERE ingested_at >= $since AND (ingested_at < $known OR ingested_at >= $first) AND id BETWEEN $low AND $high
) seen ON c.id = seen.id AND coalesce(c.tenant, '') = seen.tenant AND c.trusted = seen.trusted
QUALIFY row_number() OVER (PARTITION BY c.id, c.tenant, c.trusted ORDER BY c."row") = 1
ORDER BY c."row";
-- name: fresh_feedback
SELECT c."row" FROM chunk_rows c ANTI JOIN (
  SELECT id, interaction, coalesce(tenant, '') AS tenant, trusted FROM feedback
  WHERE ingested_at >= $since AND (ingested_at < $known OR ingested_at >= $first) AND id BETWEEN $low AND $high
) seen ON c.id = seen.id AND c.interaction = seen.interaction AND coalesce(c.tenant, '') = seen.tenant AND c.trusted = seen.trusted
QUALIFY row_number() OVER (PARTITION BY c.id, c.interaction, c.tenant, c.trusted ORDER BY c."row") = 1
ORDER BY c."row";
-- name: add_interactions
INSERT INTO interactions BY NAME SELECT *, $now AS ingested_at FROM chunk;
-- name: add_feedback
INSERT INTO feedback BY NAME SELECT *, $now AS ingested_at, least("time", $now) AS effective_at FROM chunk;
-- name: add_dead_letters
INSERT INTO dead_letters BY NAME SELECT *, $now AS received_at FROM chunk;
-- name: add_totals
INSERT INTO ingest_totals BY NAME SELECT $source AS source, $interactions AS interactions, $feedback AS feedback, $dead_letters AS dead_letters,
  $duplicates AS duplicates, $fenced AS fenced, CASE WHEN $interactions > 0 THEN $now END AS last_interaction_at,
  CASE WHEN $feedback > 0 THEN $now END AS last_feedback_at
ON CONFLICT DO UPDATE SET interactions = interactions + excluded.interactions, feedback = feedback + excluded.feedback,
  dead_letters = dead_letters + excluded.dead_letters, duplicates = duplicates + excluded.duplicates, fenced = fenced + excluded.fenced,
  last_interaction_at = coalesce(excluded.last_interaction_at, last_interaction_at),
  last_feedback_at = coalesce(excluded.last_feedback_at, last_feedback_at);
-- name: add_reason
INSERT INTO dead_letter_totals VALUES ($reason, $letters)
ON CONFLICT DO UPDATE SET letters = letters + excluded.letters;
-- name: newest_time
SELECT greatest(
  (SELECT max(ingested_at) FROM interactions), (SELECT max(ingested_at) FROM feedback), (SELECT max(as_of) FROM snapshots)
) AS newest;
-- name: count_events
SELECT (SELECT count(*) FROM interactions) AS interactions, (SELECT count(*) FROM feedback) AS feedback,
  (SELECT count(*) FROM dead_letters) AS dead_letters,
  (SELECT coalesce(sum(duplicates), 0)::BIGINT FROM ingest_totals) AS duplicates;
-- name: has_event
SELECT EXISTS (FROM interactions WHERE id = $id) OR EXISTS (FROM feedback WHERE id = $id) AS found;
-- name: event_times
SELECT min("time") AS first_at, max("time") AS last_at, max(ingested_at) AS last_ingested_at, 'interactions' AS kind FROM interactions
UNION ALL
SELECT min("time"), max("time"), max(ingested_at), 'feedback' FROM feedback;
-- name: count_orphans
-- All less those with an interaction: an anti-join on more than equality compares every pair.
SELECT (SELECT count(*) FROM feedback) - count(DISTINCT f.rowid) AS orphans FROM feedback f JOIN interactions i ON i.id = f.interaction
WHERE f.tenant IS NULL OR i.tenant IS NULL OR f.tenant = i.tenant;
-- name: orphans
SELECT f.id, f.interaction, f.tenant, f.kind, f.origin, f.effective_at, f.ingested_at
FROM feedback f ANTI JOIN (
  SELECT f.rowid AS known FROM feedback f JOIN interactions i ON i.id = f.interaction WHERE f.tenant IS NULL OR i.tenant IS NULL OR f.tenant = i.tenant
) ON known = f.rowid
ORDER BY f.ingested_at, f.id LIMIT $limit;
-- name: unstorable_interactions
SELECT "row" FROM chunk_rows WHERE NOT coalesce(json_valid(request), true) OR NOT coalesce(json_valid(choices), true)
  OR NOT coalesce(json_valid(params), true) OR NOT coalesce(json_valid(extra), true) ORDER BY "row";
-- name: unstorable_feedback
SELECT "row" FROM chunk_rows WHERE NOT coalesce(json_valid(message), true) OR NOT coalesce(json_valid(extra), true) ORDER BY "row";
