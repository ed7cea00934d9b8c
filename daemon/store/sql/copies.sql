-- Rows of a chunk that are stored already, at any time. An event without a trusted sender counts as a copy of the gateway's own:
-- hence <=, since with an OR the join would be a nested loop instead of a hash join (0.6 s a chunk at 100,000 rows).
-- name: stored_interactions
SELECT c."row" FROM chunk_rows c SEMI JOIN (
  SELECT id, coalesce(tenant, '') AS tenant, trusted FROM interactions WHERE id BETWEEN $low AND $high
) seen ON c.id = seen.id AND coalesce(c.tenant, '') = seen.tenant AND c.trusted <= seen.trusted
ORDER BY c."row";
-- name: stored_feedback
SELECT c."row" FROM chunk_rows c SEMI JOIN (
  SELECT id, interaction, coalesce(tenant, '') AS tenant, trusted FROM feedback WHERE id BETWEEN $low AND $high
) seen ON c.id = seen.id AND c.interaction = seen.interaction AND coalesce(c.tenant, '') = seen.tenant
  AND c.trusted <= seen.trusted
ORDER BY c."row";
-- name: stored_letters
-- The same bytes at the same place of the log, read by any source.
SELECT c."row" FROM chunk_rows c SEMI JOIN dead_letters seen
ON c.topic = seen.topic AND c."partition" = seen."partition" AND c.position = seen.position
  AND c.batch_index = seen.batch_index AND c.bytes IS NOT DISTINCT FROM seen.bytes
ORDER BY c."row";
