-- name: dead_letters_by_reason
SELECT reason, count(*) AS letters, min(received_at) AS first_at, max(received_at) AS last_at
FROM dead_letters GROUP BY reason ORDER BY letters DESC, reason;
-- name: list_dead_letters
SELECT id, received_at, reason, detail, source, topic, "partition", position, batch_index,
  coalesce(octet_length(bytes), 0) AS size_bytes, redriven_at
FROM dead_letters WHERE $reason IS NULL OR reason = $reason
ORDER BY received_at DESC, id LIMIT $limit;
-- name: show_dead_letter
SELECT id, received_at, reason, detail, source, topic, "partition", position, batch_index, bytes, octet_length(bytes) AS size_bytes, redriven_at
FROM dead_letters WHERE id = $id ORDER BY received_at LIMIT 1;
