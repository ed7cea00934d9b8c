-- What operators see, kept as counters so that no scrape looks through the events.
ALTER TABLE ingest_totals ADD COLUMN last_interaction_at TIMESTAMPTZ;
ALTER TABLE ingest_totals ADD COLUMN last_feedback_at TIMESTAMPTZ;
UPDATE ingest_totals SET last_interaction_at = (SELECT max(ingested_at) FROM interactions i WHERE i.source = ingest_totals.source),
  last_feedback_at = (SELECT max(ingested_at) FROM feedback f WHERE f.source = ingest_totals.source);

-- Feedback whose interaction is not known, counted in the background up to orphan_count.until. Hashes only: nothing of a person.
CREATE TABLE orphan_feedback (interaction UBIGINT NOT NULL, tenant UBIGINT);
CREATE TABLE orphan_count (until TIMESTAMPTZ NOT NULL, feedback BIGINT NOT NULL); -- one row, and how much feedback there was by then
INSERT INTO orphan_count VALUES ('1970-01-01 00:00:00+00', 0);
