-- A store that came back from a backup: nothing of it moves until it agrees with what runs.
CREATE TABLE restores (
  restored_at TIMESTAMPTZ PRIMARY KEY,
  as_of TIMESTAMPTZ NOT NULL,         -- all that was stored by then is in it
  source VARCHAR NOT NULL,            -- the backup's folder
  offsets JSON NOT NULL,              -- where each partition stood
  caught_up_at TIMESTAMPTZ,           -- the log was read again up to where it ended when it was first compared
  released_at TIMESTAMPTZ, released_by VARCHAR, reason VARCHAR, findings JSON
);
CREATE TABLE number_floors (          -- seen somewhere, though no row here has it: never issued again
  model VARCHAR PRIMARY KEY, number INTEGER NOT NULL
);
