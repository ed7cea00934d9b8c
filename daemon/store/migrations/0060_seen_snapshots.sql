-- Snapshots of an alias whose examples count as seen: those a version came of. What a run held that failed or was stopped is new
-- again, twice; the third in a row that came to nothing counts too, so that what no run can train on is not tried for ever.
CREATE MACRO seen_snapshots(only_model) AS TABLE
WITH tried AS (
  SELECT s.snapshot_id, s.as_of, s.policy_version,
    EXISTS (FROM transitions t WHERE t.subject_kind = 'run' AND t.subject = r.run_id AND t.to_state = 'trained') AS trained
  FROM snapshots s JOIN runs r ON r.snapshot_id = s.snapshot_id WHERE s.model = only_model
), counted AS (
  SELECT *, count(*) FILTER (trained) OVER (ORDER BY as_of, snapshot_id) AS versions FROM tried
)
SELECT snapshot_id, as_of, policy_version FROM counted
QUALIFY trained OR count(*) FILTER (NOT trained) OVER (PARTITION BY versions ORDER BY as_of, snapshot_id) >= 3;
