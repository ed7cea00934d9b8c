-- name: current_halt
SELECT halted_at, reason, detail, cleared_at FROM halts WHERE cleared_at IS NULL ORDER BY halted_at LIMIT 1;
-- name: add_halt
INSERT INTO halts VALUES ($now, $reason, $detail, NULL);
-- name: clear_halts
UPDATE halts SET cleared_at = $now WHERE cleared_at IS NULL;
-- name: list_halts
SELECT halted_at, reason, detail, cleared_at FROM halts ORDER BY halted_at DESC LIMIT $limit;
