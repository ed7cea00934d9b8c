-- name: add_transition
INSERT INTO transitions VALUES ($kind, $subject, $before, $after, $actor, $reason, $evidence, $now);
-- name: last_audit
SELECT sequence, digest FROM audit ORDER BY sequence DESC LIMIT 1;
-- name: add_audit
INSERT INTO audit VALUES ($sequence, $now, $actor, $action, $subject, $detail, $previous, $digest);
-- name: transitions_of
SELECT * FROM transitions WHERE subject_kind = $kind AND subject = $subject ORDER BY happened_at;
