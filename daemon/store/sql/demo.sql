-- name: event_copies
SELECT id, count(*) AS copies FROM (SELECT id FROM interactions UNION ALL SELECT id FROM feedback) GROUP BY id;
-- name: trigger_to_live
-- From the creation of the first live adapter's run to the moment it went live.
SELECT round(epoch(r.live_at) - epoch(u.created_at), 1) AS seconds
FROM rollouts r JOIN adapters a ON a.name = r.candidate JOIN runs u ON u.run_id = a.run_id
WHERE r.live_at IS NOT NULL ORDER BY r.live_at LIMIT 1;
-- name: training_step
-- Mean over ended runs; a resumed child counts its own steps only. train_s has no pauses.
SELECT round(sum(CAST(evidence ->> 'train_s' AS DOUBLE)) / sum(CAST(evidence ->> 'steps' AS INTEGER) - CAST(evidence ->> 'resumed_from' AS INTEGER)), 2) AS seconds,
  round(sum(CAST(evidence ->> 'paused_s' AS DOUBLE)), 1) AS paused_s
FROM transitions WHERE subject_kind = 'run' AND to_state = 'trained' AND (evidence ->> 'train_s') IS NOT NULL;
-- name: poisoned_rows
SELECT count(*) AS trained
FROM snapshot_rows s JOIN runs u ON u.snapshot_id = s.snapshot_id JOIN feedback f ON f.id = s.feedback
WHERE u.run_id = $run AND s.side = 'train' AND f."user" = $poisoner;
-- name: run_reason
SELECT reason FROM runs WHERE run_id = $run;
-- name: bad_adapter
SELECT count(i.id) AS requests,
  max(epoch(i."time")) - (SELECT max(epoch(CAST(evidence ->> 'decided_at' AS TIMESTAMPTZ))) FROM transitions WHERE subject_kind = 'rollout' AND subject = $rollout AND to_state = 'rolled_back') AS late_s
FROM interactions i JOIN rollouts r ON r.rollout_id = $rollout AND i.adapter = r.candidate AND i.rollout = r.rollout_id;
