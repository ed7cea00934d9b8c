-- Interactions of the last 23 hours, as the benchmark's events would have left them: ids in the order of time.
INSERT INTO interactions BY NAME
SELECT
  format('{:08x}-{:04x}-7{:03x}-8{:03x}-{:012x}', ms >> 16, ms & 65535, n & 4095, hash(n) & 4095, hash(n + 1) & 281474976710655) AS id,
  make_timestamptz(ms * 1000) AS "time", make_timestamptz(ms * 1000) + INTERVAL 1 SECOND AS ingested_at,
  'acme' AS tenant, 'support' AS model, 'support@v12-9f86d081' AS adapter, 'c-' || hash(n) % 100000 AS conversation,
  '{"messages":[{"role":"user","content":"card ' || n % 100 || '"}]}' AS request,
  '[{"message":{"role":"assistant","content":"card_arrival"},"finish_reason":"stop"}]' AS choices,
  'ok' AS status, 100 + hash(n) % 900 AS latency_ms, MAP {'product': 'cards'} AS tags, 'kept' AS texts, false AS trusted,
  'kafka' AS source, 'earlier' AS topic, n % 3 AS "partition", n // 3 AS position, 0 AS batch_index
FROM (SELECT n, ($now_ms - 82800000 + n * 82800000 // $rows)::BIGINT AS ms FROM range($rows) t(n));
