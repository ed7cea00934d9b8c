-- name: offsets_of
SELECT topic, "partition", next_offset, cluster_id, topic_id, record_at, updated_at FROM offsets WHERE source = $source;
-- name: pin_offsets
INSERT INTO offsets (source, topic, "partition", next_offset, cluster_id, topic_id, updated_at)
SELECT $source, unnest($topics::VARCHAR[]), unnest($partitions::INTEGER[]), unnest($next_offsets::BIGINT[]), unnest($cluster_ids::VARCHAR[]),
  unnest($topic_ids::VARCHAR[]), $now
ON CONFLICT DO UPDATE SET cluster_id = coalesce(cluster_id, excluded.cluster_id), topic_id = coalesce(topic_id, excluded.topic_id)
  WHERE (cluster_id IS NULL AND excluded.cluster_id IS NOT NULL) OR (topic_id IS NULL AND excluded.topic_id IS NOT NULL);
-- name: advance_offsets
UPDATE offsets SET next_offset = n.next_offset, record_at = coalesce(n.record_at, offsets.record_at), updated_at = $now
FROM (
  SELECT unnest($topics::VARCHAR[]) AS topic, unnest($partitions::INTEGER[]) AS "partition", unnest($next_offsets::BIGINT[]) AS next_offset,
    unnest($record_ats::TIMESTAMPTZ[]) AS record_at
) n
WHERE offsets.source = $source AND offsets.topic = n.topic AND offsets."partition" = n."partition";
-- name: replace_offsets
INSERT INTO offsets (source, topic, "partition", next_offset, cluster_id, topic_id, updated_at)
SELECT $source, unnest($topics::VARCHAR[]), unnest($partitions::INTEGER[]), unnest($next_offsets::BIGINT[]), unnest($cluster_ids::VARCHAR[]),
  unnest($topic_ids::VARCHAR[]), $now
ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset, cluster_id = excluded.cluster_id,
  topic_id = excluded.topic_id, record_at = NULL, updated_at = excluded.updated_at;
-- name: forget_offset
DELETE FROM offsets WHERE source = $source AND topic = $topic AND "partition" = $partition;
