-- name: add_table
INSERT INTO route_tables BY NAME SELECT $epoch AS epoch, $published AS published, $reason AS reason, $now AS created_at;
-- name: current_table
SELECT published FROM route_tables ORDER BY epoch DESC LIMIT 1;
