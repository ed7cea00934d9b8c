-- name: orphan_mark
SELECT m.until AS since, m.feedback, greatest(m.until, (SELECT max(last_interaction_at) FROM ingest_totals), (SELECT max(last_feedback_at) FROM ingest_totals)) AS until,
  (SELECT count(*) FROM feedback WHERE ingested_at <= m.until) AS still_there
FROM orphan_count m;
-- name: new_orphans
-- Feedback stored since the last look to which no interaction is known. Reads all interactions' ids, so not on the writer.
-- In two steps: an anti-join on more than equality compares every pair.
WITH said AS (SELECT rowid AS row_id, interaction, tenant FROM feedback WHERE ingested_at > $since AND ingested_at <= $until)
SELECT hash(interaction) AS interaction, hash(tenant) AS tenant, tenant IS NULL AS "any"
FROM said ANTI JOIN (
  SELECT s.row_id AS known FROM said s JOIN interactions i ON i.id = s.interaction AND i.ingested_at <= $until
  WHERE s.tenant IS NULL OR i.tenant IS NULL OR s.tenant = i.tenant
) ON known = row_id;
-- name: add_orphans
INSERT INTO orphan_feedback SELECT interaction, CASE WHEN "any" THEN NULL ELSE tenant END FROM orphans;
-- name: drop_found
-- Those whose interaction has come since.
DELETE FROM orphan_feedback o USING (
  SELECT hash(id) AS id, tenant IS NULL AS "any", hash(tenant) AS tenant FROM interactions WHERE ingested_at > $since AND ingested_at <= $until
) i WHERE i.id = o.interaction AND (o.tenant IS NULL OR i."any" OR o.tenant = i.tenant);
-- name: forget_orphans
DELETE FROM orphan_feedback;
-- name: count_unscaled
-- Ratings of older releases without a scale: see the migration. Only where rows were removed.
UPDATE unscaled_ratings SET feedback = (
  SELECT count(*) FROM feedback
  WHERE CASE WHEN kind = 'rating' AND "value" NOT IN (-1, 1) THEN json_extract(extra, '$.scale') IS NULL ELSE false END
);
-- name: move_mark
UPDATE orphan_count SET until = $until, feedback = (SELECT count(*) FROM feedback WHERE ingested_at <= $until) WHERE until = $since;
