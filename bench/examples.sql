-- name: fill_interactions
-- $rows interactions of the last 30 days, ids in the order of time, one in four about cards.
INSERT INTO interactions BY NAME
SELECT
  format('{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}', ms >> 16, ms & 65535, n & 4095, hash(n) & 4095, hash(n + 1) & 281474976710655) AS id,
  make_timestamptz(ms * 1000) AS "time", make_timestamptz(ms * 1000) + INTERVAL 1 SECOND AS ingested_at,
  'acme' AS tenant, 'support' AS model, 'support@v12-9f86d081' AS adapter, 'c-' || n // 3 AS conversation, 'u-' || hash(n) % 100000 AS "user",
  '{"messages":[{"role":"user","content":"My ' || list_value('card', 'transfer', 'account', 'loan')[(1 + hash(n) % 4)::BIGINT] || ' number ' || hash(n + 2) % 1000000
    || ' has not arrived, where is it? I asked on day ' || n % 31 || '."}]}' AS request,
  '[{"message":{"role":"assistant","content":"It is on its way, reference ' || hash(n + 3) % 1000000 || '."},"finish_reason":"stop"}]' AS choices,
  'ok' AS status, 100 + hash(n) % 900 AS latency_ms,
  MAP {'product': list_value('cards', 'transfers', 'accounts', 'loans')[(1 + hash(n) % 4)::BIGINT]} AS tags, 'kept' AS texts, true AS trusted,
  'kafka' AS source, 'interactions.v1' AS topic, n % 3 AS "partition", n // 3 AS position, 0 AS batch_index
FROM (SELECT n, ($now_ms - $span_ms + n * $span_ms // $rows)::BIGINT AS ms FROM range($rows) t(n));
-- name: fill_feedback
-- One interaction in ten is rated and one in fifty corrected, most within hours, one in a hundred up to ten days later.
INSERT INTO feedback BY NAME
SELECT 'f-' || kind || '-' || id AS id, said_at AS "time", said_at AS ingested_at, said_at AS effective_at, id AS interaction, 0 AS choice,
  "user", 'user' AS origin, 'acme' AS tenant, kind,
  CASE WHEN kind = 'rating' THEN CASE WHEN hash(id || 'v') % 4 = 0 THEN -1.0 ELSE 1.0 END END AS "value",
  CASE WHEN kind = 'correction' THEN 'It was sent on the ' || hash(id) % 28 || 'th.' END AS "text",
  true AS trusted, 'gateway' AS principal, 'kafka' AS source, 'feedback.v1' AS topic, 0 AS "partition", row_number() OVER () AS position, 0 AS batch_index
FROM (
  SELECT id, "user", kind, ingested_at + to_milliseconds(
    CASE WHEN hash(id || kind) % 100 = 0 THEN hash(id || 'late') % 864000000 ELSE (-7200000 * ln(1 - (hash(id || 'soon') % 100000) / 100000.0))::BIGINT END
  ) AS said_at
  FROM interactions, (VALUES ('rating', 10), ('correction', 50)) k(kind, every) WHERE hash(id || kind || 'said') % every = 0
) WHERE said_at <= make_timestamptz($now_ms * 1000)
ORDER BY said_at;
-- name: fill_orphans
INSERT INTO feedback BY NAME
SELECT 'f-orphan-' || n AS id, to_timestamp($now_ms / 1000.0) AS "time", to_timestamp($now_ms / 1000.0) AS ingested_at,
  to_timestamp($now_ms / 1000.0) AS effective_at, 'nobody-' || n AS interaction, 0 AS choice, 'user' AS origin, 'acme' AS tenant, 'rating' AS kind,
  1.0 AS "value", true AS trusted, 'gateway' AS principal, 'kafka' AS source, 'feedback.v1' AS topic, 1 AS "partition", n AS position, 0 AS batch_index
FROM range($orphans) t(n);
-- name: count_expected
SELECT count(*) FROM interactions WHERE tags['product'] = 'cards' AND id IN (SELECT interaction FROM feedback);
