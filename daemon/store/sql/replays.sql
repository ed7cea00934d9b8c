-- name: add_replay
INSERT INTO replays (replay_id, state, asked, ranges, actor, reason, created_at)
VALUES ($replay_id, $state, $asked, $ranges, $actor, $reason, $created_at);
-- name: replays
SELECT r.*, coalesce(t.interactions, 0) AS interactions, coalesce(t.feedback, 0) AS feedback,
  coalesce(t.dead_letters, 0) AS dead_letters, coalesce(t.duplicates, 0) AS duplicates
FROM replays r LEFT JOIN ingest_totals t ON t.source = 'replay:' || r.replay_id
WHERE $replay_id IS NULL OR r.replay_id = $replay_id
ORDER BY r.created_at DESC, r.replay_id DESC LIMIT $limit;
-- name: oldest_running
SELECT replay_id FROM replays WHERE state = 'running' ORDER BY created_at, replay_id LIMIT 1;
-- name: note_problem
UPDATE replays SET problem = $problem WHERE replay_id = $replay_id AND state = 'running';
-- name: finish_replay
UPDATE replays SET state = $state, problem = $problem, finished_at = $now WHERE replay_id = $replay_id;
