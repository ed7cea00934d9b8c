-- Events that come again: replays of the log, and dead letters that are redriven or published.
CREATE TABLE replays (
  replay_id VARCHAR PRIMARY KEY, state VARCHAR NOT NULL, -- running, done, cancelled, failed
  asked JSON NOT NULL,                -- what the operator asked for
  ranges JSON NOT NULL,               -- what that is, offset by offset, fixed when it began
  actor VARCHAR NOT NULL, reason VARCHAR NOT NULL, problem VARCHAR, -- why it waits, or why it failed
  created_at TIMESTAMPTZ NOT NULL, finished_at TIMESTAMPTZ
);

-- Who vouched for it and what they may say, as JSON: a redriven event may say no more than it might have at first.
ALTER TABLE dead_letters ADD COLUMN sender VARCHAR;
ALTER TABLE dead_letters ADD COLUMN published_at TIMESTAMPTZ;   -- in Kafka's topic of dead letters

-- Since the store was made: goes on counting what retention has deleted.
CREATE TABLE dead_letter_totals (reason VARCHAR PRIMARY KEY, letters BIGINT NOT NULL);
INSERT INTO dead_letter_totals SELECT reason, count(*) FROM dead_letters GROUP BY reason;
