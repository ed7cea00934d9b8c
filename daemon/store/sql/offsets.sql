-- name: offsets_of
SELECT topic, "partition", next_offset, cluster_id, topic_id, record_at, updated_at FROM offsets WHERE source = $source;
-- name: pin_offset
INSERT INTO offsets (source, topic, "partition", next_offset, cluster_id, topic_id, updated_at)
VALUES ($source, $topic, $partition, $next_offset, $cluster_id, $topic_id, $now)
ON CONFLICT DO NOTHING;
-- name: advance_offset
UPDATE offsets SET next_offset = $next_offset, record_at = coalesce($record_at, record_at), updated_at = $now
WHERE source = $source AND topic = $topic AND "partition" = $partition;
-- name: replace_offset
INSERT INTO offsets (source, topic, "partition", next_offset, cluster_id, topic_id, updated_at)
VALUES ($source, $topic, $partition, $next_offset, $cluster_id, $topic_id, $now)
ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset, cluster_id = excluded.cluster_id,
  topic_id = excluded.topic_id, record_at = NULL, updated_at = excluded.updated_at;
-- name: forget_offset
DELETE FROM offsets WHERE source = $source AND topic = $topic AND "partition" = $partition;
