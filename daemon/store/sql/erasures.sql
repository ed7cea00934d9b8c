-- name: add_erasure
INSERT INTO erasures BY NAME SELECT $erasure_id AS erasure_id, $person AS person, $tenant AS tenant, $reason AS reason, $actor AS actor,
  'requested' AS state, $now AS requested_at, $now AS updated_at, $barred_until AS barred_until, '{}' AS report;
-- name: get_erasure
SELECT * FROM erasures WHERE erasure_id = $erasure_id;
-- name: list_erasures
-- Newest first.
SELECT * FROM erasures ORDER BY requested_at DESC, erasure_id DESC LIMIT $limit;
-- name: unfinished_erasures
-- Oldest first.
SELECT * FROM erasures WHERE state <> 'done' ORDER BY requested_at, erasure_id;
-- name: erasure_of_person
SELECT * FROM erasures WHERE person = $person AND tenant IS NOT DISTINCT FROM $tenant AND state <> 'done' ORDER BY requested_at LIMIT 1;
-- name: move_erasure
UPDATE erasures SET state = $state, updated_at = $now, waits_for = NULL, report = $report,
  finished_at = CASE WHEN $state = 'done' THEN $now ELSE finished_at END WHERE erasure_id = $erasure_id;
-- name: set_waits_for
UPDATE erasures SET waits_for = $waits_for, updated_at = $now WHERE erasure_id = $erasure_id;
-- name: add_person
INSERT INTO erasure_work VALUES ($erasure_id, 'user', $user, NULL, $tenant);
-- name: work_of
SELECT kind, "value", about, tenant FROM erasure_work WHERE erasure_id = $erasure_id;
-- name: drop_work
DELETE FROM erasure_work WHERE erasure_id = $erasure_id;
-- name: drop_found
DELETE FROM erasure_work WHERE erasure_id = $erasure_id AND kind <> 'user';
-- name: find_conversations
INSERT INTO erasure_work
SELECT DISTINCT $erasure_id, 'conversation', conversation, NULL, tenant FROM interactions
WHERE ("user" = $user OR (unit_kind = 'user' AND unit = $user)) AND conversation IS NOT NULL
  AND ($tenant IS NULL OR tenant IS NULL OR tenant = $tenant);
-- name: find_interactions
-- The person's interactions, and every turn of their conversations: later turns quote earlier ones.
INSERT INTO erasure_work
SELECT DISTINCT $erasure_id, 'interaction', i.id, NULL, i.tenant FROM interactions i
LEFT JOIN (SELECT "value", tenant FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'conversation') w
  ON w."value" = i.conversation AND (w.tenant IS NULL OR i.tenant IS NULL OR w.tenant = i.tenant)
WHERE w."value" IS NOT NULL
  OR ((i."user" = $user OR (i.unit_kind = 'user' AND i.unit = $user)) AND ($tenant IS NULL OR i.tenant IS NULL OR i.tenant = $tenant));
-- name: find_feedback
-- The person's feedback, and all feedback on their interactions. An id is unique per sender, so it counts together with its interaction.
INSERT INTO erasure_work
WITH mine AS (SELECT "value", tenant FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'interaction'),
about AS (
  SELECT f.id, f.interaction, f.tenant, m.tenant AS whose FROM feedback f JOIN mine m ON m."value" = f.interaction
  UNION ALL SELECT f.id, f.interaction, f.tenant, m.tenant FROM feedback f JOIN mine m ON m."value" = f.chosen
  UNION ALL SELECT f.id, f.interaction, f.tenant, m.tenant FROM feedback f JOIN mine m ON m."value" = f.rejected
)
SELECT DISTINCT $erasure_id, 'feedback', id, interaction, tenant FROM (
  SELECT id, interaction, tenant FROM about WHERE whose IS NULL OR tenant IS NULL OR whose = tenant
  UNION ALL
  SELECT id, interaction, tenant FROM feedback WHERE "user" = $user AND ($tenant IS NULL OR tenant IS NULL OR tenant = $tenant)
);
-- name: count_work
SELECT kind, count(*) AS found FROM erasure_work WHERE erasure_id = $erasure_id GROUP BY kind;
-- name: count_others
-- Turns of other people in the person's conversations: these are deleted too.
SELECT count(*) AS found FROM interactions i SEMI JOIN (FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'interaction') w
ON w."value" = i.id AND w.tenant IS NOT DISTINCT FROM i.tenant WHERE i."user" <> $user;
-- name: log_ranges
-- Places of the person's events in Kafka's log.
SELECT topic, "partition", min(position) AS first_offset, max(position) AS last_offset, count(*) AS events FROM (
  SELECT i.topic, i."partition", i.position FROM interactions i
  SEMI JOIN (FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'interaction') w ON w."value" = i.id AND w.tenant IS NOT DISTINCT FROM i.tenant
  WHERE i.source = 'kafka' OR i.source LIKE 'replay:%'
  UNION ALL
  SELECT f.topic, f."partition", f.position FROM feedback f
  SEMI JOIN (FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'feedback') w ON w."value" = f.id AND w.about = f.interaction AND w.tenant IS NOT DISTINCT FROM f.tenant
  WHERE f.source = 'kafka' OR f.source LIKE 'replay:%'
) WHERE topic <> '' GROUP BY ALL ORDER BY ALL;
-- name: add_user_tombstone
INSERT INTO tombstones VALUES ($erasure_id, 'user', $key, $tenant, $until);
-- name: add_tombstones
INSERT INTO tombstones
SELECT erasure_id, kind, keyed($secret, kind, "value"), tenant, $until FROM erasure_work
WHERE erasure_id = $erasure_id AND kind IN ('conversation', 'interaction');
-- name: drop_found_tombstones
DELETE FROM tombstones WHERE erasure_id = $erasure_id AND kind <> 'user';
-- name: lift_tombstones
DELETE FROM tombstones WHERE erasure_id IN (SELECT erasure_id FROM erasures WHERE person = $person AND tenant IS NOT DISTINCT FROM $tenant);
-- name: lift_erasures
UPDATE erasures SET lifted_at = $now WHERE person = $person AND tenant IS NOT DISTINCT FROM $tenant AND lifted_at IS NULL RETURNING erasure_id;
-- name: drop_old_tombstones
DELETE FROM tombstones WHERE until <= $now;
-- name: affected_rows
-- Lineage of snapshots with the person's rows. The user alone decides where no tenant was given, or the interaction that had it is gone.
SELECT r.snapshot_id, r.side, r.interaction, r.feedback, r."group" FROM snapshot_rows r
WHERE EXISTS (FROM erasure_work w WHERE w.erasure_id = $erasure_id AND w.kind = 'interaction' AND w."value" = r.interaction)
  OR EXISTS (FROM erasure_work w WHERE w.erasure_id = $erasure_id AND w.kind = 'feedback' AND w."value" = r.feedback AND w.about = r.interaction)
  OR (r."user" = $user AND ($tenant IS NULL OR NOT EXISTS (FROM interactions i WHERE i.id = r.interaction)));
-- name: snapshot_paths
SELECT snapshot_id, path FROM snapshots WHERE list_contains($snapshots, snapshot_id) ORDER BY snapshot_id;
-- name: add_erased_snapshot
INSERT OR REPLACE INTO erased_snapshots VALUES ($snapshot_id, $erasure_id, $train_rows, $other_rows, $row_keys);
-- name: erased_snapshots_of
SELECT snapshot_id, train_rows, other_rows, row_keys FROM erased_snapshots WHERE erasure_id = $erasure_id ORDER BY snapshot_id;
-- name: all_versions
SELECT name, model, state, parent, snapshot_id, run_id, path, tainted_by FROM adapters ORDER BY created_at, number;
-- name: taint_version
UPDATE adapters SET tainted_by = $erasure_id WHERE name = $name AND tainted_by IS NULL;
-- name: late_versions
-- Versions numbered after their snapshot or parent was found to hold an erased person.
SELECT a.name, coalesce(p.tainted_by, s.erasure_id) AS erasure_id FROM adapters a
LEFT JOIN adapters p ON p.name = a.parent LEFT JOIN (SELECT snapshot_id, min(erasure_id) AS erasure_id FROM erased_snapshots WHERE train_rows > 0 GROUP BY snapshot_id) s
  ON s.snapshot_id = a.snapshot_id
WHERE a.tainted_by IS NULL AND coalesce(p.tainted_by, s.erasure_id) IS NOT NULL;
-- name: runs_on
-- Runs that train or trained on these snapshots or versions.
SELECT run_id, state, snapshot_id, directory FROM runs
WHERE list_contains($snapshots, snapshot_id) OR list_contains($versions, start_from) OR list_contains($versions, adapter) ORDER BY run_id;
-- name: rollouts_on
SELECT rollout_id, candidate, state FROM rollouts
WHERE list_contains($active, state) AND candidate IN (SELECT name FROM adapters WHERE tainted_by IS NOT NULL);
-- name: tainted_versions
SELECT name, model, state, path FROM adapters WHERE tainted_by IS NOT NULL AND state <> 'erased' ORDER BY number;
-- name: drop_interactions
DELETE FROM interactions WHERE EXISTS (FROM erasure_work w WHERE w.erasure_id = $erasure_id AND w.kind = 'interaction'
  AND w."value" = interactions.id AND w.tenant IS NOT DISTINCT FROM interactions.tenant);
-- name: drop_feedback
DELETE FROM feedback WHERE EXISTS (FROM erasure_work w WHERE w.erasure_id = $erasure_id AND w.kind = 'feedback'
  AND w."value" = feedback.id AND w.about = feedback.interaction AND w.tenant IS NOT DISTINCT FROM feedback.tenant);
-- name: drop_lineage
DELETE FROM snapshot_rows r
WHERE EXISTS (FROM erasure_work w WHERE w.erasure_id = $erasure_id AND w.kind = 'interaction' AND w."value" = r.interaction)
  OR EXISTS (FROM erasure_work w WHERE w.erasure_id = $erasure_id AND w.kind = 'feedback' AND w."value" = r.feedback AND w.about = r.interaction)
  OR (r."user" = $user AND ($tenant IS NULL OR NOT EXISTS (FROM interactions i WHERE i.id = r.interaction)));
-- name: drop_scores
DELETE FROM scores WHERE list_contains($items, item);
-- name: letters_with_bytes
SELECT rowid AS "row", bytes, reason, detail, redriven_at FROM dead_letters WHERE bytes IS NOT NULL AND rowid > $after ORDER BY rowid LIMIT $limit;
-- name: redriven_ids
-- The person's events that were dead letters first: only the letter has their place in Kafka's log.
SELECT i.id FROM interactions i
SEMI JOIN (FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'interaction') w ON w."value" = i.id AND w.tenant IS NOT DISTINCT FROM i.tenant
WHERE i.source = 'redrive'
UNION
SELECT f.id FROM feedback f
SEMI JOIN (FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'feedback') w ON w."value" = f.id AND w.about = f.interaction AND w.tenant IS NOT DISTINCT FROM f.tenant
WHERE f.source = 'redrive';
-- name: letter_ranges
-- Places of letters in Kafka's log, neighbours as one range. A refused batch is at its last offset, and its detail has the first.
WITH records AS (
  SELECT DISTINCT topic, "partition", position AS until,
    CASE reason WHEN 'unpacks_too_large' THEN coalesce(TRY_CAST(regexp_extract(detail, 'offsets (\d+) to', 1) AS BIGINT), position) ELSE position END AS since
  FROM dead_letters WHERE rowid IN (SELECT unnest($rows::BIGINT[])) AND (source = 'kafka' OR source LIKE 'replay:%')
),
marked AS (
  SELECT *, coalesce(since > max(until) OVER (PARTITION BY topic, "partition" ORDER BY since, until ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) + 1, true) AS opens
  FROM records
),
numbered AS (
  SELECT *, count_if(opens) OVER (PARTITION BY topic, "partition" ORDER BY since, until ROWS UNBOUNDED PRECEDING) AS island FROM marked
),
islands AS (
  SELECT topic, "partition", min(since) AS since, max(until) AS until, count(*) AS records FROM numbered GROUP BY topic, "partition", island
)
SELECT topic, "partition", min(since) AS first_offset, max(until) AS last_offset, sum(records)::BIGINT AS records,
  count(*) AS ranges, list([since, until] ORDER BY since)[:100] AS offsets
FROM islands GROUP BY topic, "partition" ORDER BY topic, "partition";
-- name: published_letters
-- Letters that are in Kafka's topic of dead letters, by their keys there; `waiting` ones may be on their way.
SELECT count(*) AS letters, count(*) FILTER (published_at IS NULL) AS waiting, epoch_ms(min(published_at)) AS first_ms, epoch_ms(max(published_at)) AS last_ms,
  list(id ORDER BY received_at, id)[:100] AS keys
FROM dead_letters WHERE rowid IN (SELECT unnest($rows::BIGINT[]));
-- name: blank_letters
UPDATE dead_letters SET bytes = NULL, reason = 'erased', detail = 'it is of a person who was erased' WHERE list_contains($rows, rowid);
-- name: texts_of_person
-- The person's members of groups: conversations, and the messages in their requests.
SELECT i.model, coalesce(i.conversation, i.id) AS conversation, i.request FROM interactions i
SEMI JOIN (FROM erasure_work WHERE erasure_id = $erasure_id AND kind = 'interaction') w ON w."value" = i.id AND w.tenant IS NOT DISTINCT FROM i.tenant;
-- name: groups_of
SELECT DISTINCT model, "group" FROM example_groups WHERE list_contains($members, member);
-- name: conversations_in_groups
SELECT model, member FROM example_groups WHERE list_contains($groups, "group") AND starts_with(member, 'c:') AND NOT list_contains($members, member);
-- name: texts_of_conversations
SELECT model, coalesce(conversation, id) AS conversation, request FROM interactions WHERE list_contains($conversations, coalesce(conversation, id));
-- name: drop_members
DELETE FROM example_groups WHERE list_contains($members, member);
-- name: mentions
-- Other people's events whose texts hold the identifier: counted and reported, never changed.
SELECT count(*) AS found, list(id ORDER BY ingested_at DESC)[:10] AS ids FROM (
  SELECT id, ingested_at FROM interactions WHERE contains(request::VARCHAR, $user) OR contains(choices::VARCHAR, $user) OR contains(params::VARCHAR, $user)
    OR contains(extra::VARCHAR, $user)
  UNION ALL
  SELECT id, ingested_at FROM feedback WHERE contains("text", $user) OR contains(message::VARCHAR, $user) OR contains(chosen, $user)
    OR contains(rejected, $user) OR contains(extra::VARCHAR, $user)
);
-- name: policies_naming
SELECT model, version, path FROM policy_versions WHERE contains(yaml, $user) ORDER BY ALL;
