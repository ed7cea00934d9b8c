ALTER TABLE policy_versions ADD COLUMN withdrawn_at TIMESTAMPTZ; -- since when no file names the alias; NULL while one does
