-- name: copy_store
-- One transaction: it copies the rows committed at its beginning, and no writer waits for it.
COPY FROM DATABASE store TO store_copy;
-- name: detach_copy
DETACH store_copy;
-- name: copied_adapters
SELECT name, model, number, content_hash, path, base_digest, state, run_id, parent, snapshot_id, created_at
FROM store_copy.adapters WHERE state <> 'erased' ORDER BY name;
-- name: copied_offsets
SELECT source, topic, "partition", next_offset, topic_id, cluster_id FROM store_copy.offsets ORDER BY ALL;
-- name: copied_facts
SELECT (SELECT max(number) FROM store_copy.migrations) AS schema,
  (SELECT coalesce(max(epoch), 0) FROM store_copy.route_tables) AS epoch,
  (SELECT count(*) FROM store_copy.interactions) AS interactions,
  (SELECT count(*) FROM store_copy.feedback) AS feedback,
  (SELECT count(*) FROM store_copy.dead_letters) AS dead_letters;
