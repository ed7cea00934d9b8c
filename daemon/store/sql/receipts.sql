-- name: add_receipt
-- The first receipt of a version on a host process stays.
INSERT INTO receipts BY NAME SELECT
  $adapter AS adapter, $instance AS instance, $passed AS passed, $reason AS reason, $slope AS slope,
  $residual_ratio AS residual_ratio, $effect_ratio AS effect_ratio, $report AS report, $created_at AS created_at
ON CONFLICT DO NOTHING;
-- name: get_receipt
SELECT * FROM receipts WHERE adapter = $adapter AND instance = $instance;
-- name: passed_on
SELECT adapter FROM receipts WHERE instance = $instance AND passed;
-- name: list_receipts
SELECT * FROM receipts WHERE adapter = $adapter ORDER BY created_at DESC;
