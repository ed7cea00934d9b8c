-- name: scores_of
-- Scores of one version; $items is a list.
SELECT item, exact, nll, reference_tokens FROM scores
WHERE adapter = $adapter AND suite = $suite AND list_contains($items, item);
-- name: add_scores
-- Lists of equal length. The first score of a version on an item stays: a repeat after a restart changes nothing.
INSERT OR IGNORE INTO scores SELECT $adapter, $suite, unnest($items), unnest($exact), unnest($nll), unnest($reference_tokens);
-- name: add_evaluation
INSERT INTO evaluations BY NAME SELECT
  $evaluation_id AS evaluation_id, $run_id AS run_id, $model AS model, $candidate AS candidate, $live AS live,
  $holdout_version AS holdout_version, $k AS k, $alpha AS alpha, $verdict AS verdict, $report AS report,
  $policy_version AS policy_version, $created_at AS created_at;
-- name: get_evaluation
SELECT * FROM evaluations WHERE evaluation_id = $evaluation_id;
-- name: list_evaluations
-- Newest first.
SELECT * FROM evaluations WHERE $model IS NULL OR model = $model ORDER BY created_at DESC, evaluation_id DESC LIMIT $limit;
-- name: evaluations_of_run
-- Newest first.
SELECT * FROM evaluations WHERE run_id = $run_id ORDER BY created_at DESC, evaluation_id DESC;
-- name: is_candidate
SELECT name FROM adapters WHERE name = $name AND state = 'candidate';
-- name: abandoned_candidates
SELECT a.name FROM adapters a JOIN runs r USING (run_id) WHERE a.state = 'candidate' AND r.state IN ('cancelled', 'failed') ORDER BY a.name;
