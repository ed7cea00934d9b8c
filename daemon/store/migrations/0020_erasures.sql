-- Forgetting people. A person is in these tables as a keyed pseudonym only, but for `erasure_work` while an erasure is under way.
CREATE TABLE erasures (
  erasure_id VARCHAR PRIMARY KEY, person VARCHAR NOT NULL, tenant VARCHAR, reason VARCHAR NOT NULL, actor VARCHAR NOT NULL,
  state VARCHAR NOT NULL,             -- requested, collected, files, rewriting, done
  requested_at TIMESTAMPTZ NOT NULL, updated_at TIMESTAMPTZ NOT NULL, barred_until TIMESTAMPTZ NOT NULL,
  finished_at TIMESTAMPTZ, lifted_at TIMESTAMPTZ, waits_for VARCHAR, report JSON NOT NULL
);
CREATE TABLE erasure_work (           -- emptied before the file is rewritten
  erasure_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, -- user, conversation, interaction, feedback
  "value" VARCHAR NOT NULL, about VARCHAR, tenant VARCHAR -- about: the interaction that feedback is on
);
CREATE TABLE tombstones (             -- whose events are not stored
  erasure_id VARCHAR NOT NULL, kind VARCHAR NOT NULL, -- user, conversation, interaction
  "key" VARCHAR NOT NULL, tenant VARCHAR, until TIMESTAMPTZ NOT NULL
);
CREATE TABLE erased_snapshots (       -- snapshots that held rows of an erased person, with keyed pseudonyms of those rows
  snapshot_id VARCHAR NOT NULL, erasure_id VARCHAR NOT NULL, train_rows INTEGER NOT NULL, other_rows INTEGER NOT NULL,
  row_keys JSON NOT NULL, PRIMARY KEY (snapshot_id, erasure_id)
);
ALTER TABLE adapters ADD COLUMN tainted_by VARCHAR; -- the erasure of a person it was trained on
CREATE TABLE retention (kind VARCHAR PRIMARY KEY, ran_at TIMESTAMPTZ NOT NULL, removed BIGINT NOT NULL);

-- What stands for a value: `pseudonym` in daemon/domain/erasures.py is the same.
CREATE MACRO keyed(secret, kind, "value") AS left(sha256(secret || chr(31) || kind || chr(31) || "value"), 32);
