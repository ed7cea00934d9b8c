-- name: orphan_mark
SELECT m.until AS since, m.feedback, greatest(m.until, (SELECT max(last_interaction_at) FROM ingest_totals), (SELECT max(last_feedback_at) FROM ingest_totals)) AS until,
  (SELECT count(*) FROM feedback WHERE ingested_at <= m.until) AS still_there
FROM orphan_count m;
-- name: new_orphans
-- Feedback stored since the last look to which no interaction is known. Reads all interactions' ids, so not on the writer.
SELECT hash(f.interaction) AS interaction, hash(f.tenant) AS tenant, f.tenant IS NULL AS "any"
FROM feedback f ANTI JOIN interactions i ON i.id = f.interaction AND i.ingested_at <= $until
  AND (f.tenant IS NULL OR i.tenant IS NULL OR f.tenant = i.tenant)
WHERE f.ingested_at > $since AND f.ingested_at <= $until;
-- name: add_orphans
INSERT INTO orphan_feedback SELECT interaction, CASE WHEN "any" THEN NULL ELSE tenant END FROM orphans;
-- name: drop_found
-- Those whose interaction has come since.
DELETE FROM orphan_feedback o USING (
  SELECT hash(id) AS id, tenant IS NULL AS "any", hash(tenant) AS tenant FROM interactions WHERE ingested_at > $since AND ingested_at <= $until
) i WHERE i.id = o.interaction AND (o.tenant IS NULL OR i."any" OR o.tenant = i.tenant);
-- name: forget_orphans
DELETE FROM orphan_feedback;
-- name: move_mark
UPDATE orphan_count SET until = $until, feedback = (SELECT count(*) FROM feedback WHERE ingested_at <= $until) WHERE until = $since;
