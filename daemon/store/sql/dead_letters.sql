-- name: dead_letters_by_reason
-- `letters` since the store was made; `kept` are still here, and `waiting` of them were not redriven.
SELECT t.reason, t.letters, coalesce(k.kept, 0) AS kept, coalesce(k.waiting, 0) AS waiting, k.first_at, k.last_at
FROM (
  FROM dead_letter_totals
  UNION ALL SELECT DISTINCT reason, 0 FROM dead_letters WHERE reason NOT IN (SELECT reason FROM dead_letter_totals)
) t LEFT JOIN (
  SELECT reason, count(*) AS kept, count(*) FILTER (redriven_at IS NULL) AS waiting, min(received_at) AS first_at, max(received_at) AS last_at
  FROM dead_letters GROUP BY reason
) k ON k.reason = t.reason
ORDER BY letters DESC, t.reason;
-- name: list_dead_letters
SELECT id, received_at, reason, detail, source, topic, "partition", position, batch_index,
  coalesce(octet_length(bytes), 0) AS size_bytes, redriven_at, published_at
FROM dead_letters WHERE $reason IS NULL OR reason = $reason
ORDER BY received_at DESC, id LIMIT $limit;
-- name: show_dead_letter
SELECT id, received_at, reason, detail, source, topic, "partition", position, batch_index, bytes, octet_length(bytes) AS size_bytes,
  sender, redriven_at, published_at
FROM dead_letters WHERE id = $id ORDER BY received_at LIMIT 1;
-- name: waiting_letters
-- Sizes only: `letters_of` reads the bytes of those that fit into one step.
SELECT id, received_at, coalesce(octet_length(bytes), 0) AS size_bytes FROM dead_letters
WHERE redriven_at IS NULL AND reason <> 'erased' AND received_at <= $until AND (received_at, id) > ($received_at, $id)
  AND ($reason IS NULL OR reason = $reason) AND (len($ids) = 0 OR list_contains($ids, id))
ORDER BY received_at, id LIMIT $limit;
-- name: unpublished_letters
-- By place, since letters of one chunk share a time and ids sort as text, position 10 before 9.
SELECT id, received_at, coalesce(octet_length(bytes), 0) AS size_bytes FROM dead_letters
WHERE published_at IS NULL ORDER BY received_at, source, topic, "partition", position, batch_index LIMIT $limit;
-- name: letters_of
SELECT d.id, d.received_at, d.reason, d.detail, d.source, d.topic, d."partition", d.position, d.batch_index, d.bytes,
  octet_length(d.bytes) AS size_bytes, d.sender, d.redriven_at, d.published_at
FROM dead_letters d SEMI JOIN letter_keys k ON d.id = k.id AND d.received_at = k.received_at
ORDER BY d.received_at, d.source, d.topic, d."partition", d.position, d.batch_index;
-- name: mark_redriven
UPDATE dead_letters SET redriven_at = $now FROM letter_keys k
WHERE dead_letters.id = k.id AND dead_letters.received_at = k.received_at AND k.reason IS NULL;
-- name: mark_dead_again
UPDATE dead_letters SET reason = k.reason, detail = k.detail, bytes = CASE WHEN k.reason <> 'erased' THEN dead_letters.bytes END
FROM letter_keys k
WHERE dead_letters.id = k.id AND dead_letters.received_at = k.received_at AND k.reason IS NOT NULL;
-- name: mark_published
UPDATE dead_letters SET published_at = $now FROM letter_keys k
WHERE dead_letters.id = k.id AND dead_letters.received_at = k.received_at;
-- name: drop_copies
DELETE FROM dead_letters WHERE source = $source AND list_contains($ids, id);
-- name: uncount_copies
UPDATE dead_letter_totals SET letters = dead_letter_totals.letters - copies.letters FROM (
  SELECT reason, count(*) AS letters FROM dead_letters WHERE source = $source AND list_contains($ids, id) GROUP BY reason
) copies WHERE dead_letter_totals.reason = copies.reason;
