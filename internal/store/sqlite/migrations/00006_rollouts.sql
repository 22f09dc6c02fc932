-- Rollouts, groups, what people say of devices, and the fleet's clock
-- (docs/design/rollouts.md). Columns named clock or heard are by that clock:
-- microseconds that the server has watched its fleet, 0 for never.

-- +goose Up

-- id is the only row's: 1. It starts above 0, which means never.
CREATE TABLE fleet_clock (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    clock INTEGER NOT NULL,
    wall  INTEGER NOT NULL -- when it was read
) STRICT;
INSERT INTO fleet_clock (id, clock, wall) VALUES (1, 1, 0);

CREATE TABLE rollouts (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    product    TEXT    NOT NULL,
    release_id INTEGER NOT NULL REFERENCES releases (id), -- one of its builds
    course     TEXT    NOT NULL CHECK (json_valid(course)), -- fleet.Course
    created_at INTEGER NOT NULL,
    version    INTEGER NOT NULL CHECK (version > 0), -- rises with every change: compare and set
    state      TEXT    NOT NULL CHECK (state IN ('scheduled', 'running', 'paused', 'complete', 'reverting', 'reverted', 'cancelled', 'superseded')),
    phase      INTEGER NOT NULL CHECK (phase >= 0),
    reason     TEXT    NOT NULL,
    began      INTEGER NOT NULL, -- clock, as the next
    passed     INTEGER NOT NULL,
    expected   INTEGER NOT NULL,
    reach      REAL    NOT NULL,
    forgiven   TEXT    NOT NULL CHECK (json_valid(forgiven)), -- fleet.Evidence
    changed_at INTEGER NOT NULL,
    next_at    INTEGER NOT NULL DEFAULT 0 -- clock from which bytes per second let the next begin; no part of version
) STRICT;
CREATE INDEX rollouts_product ON rollouts (product);
CREATE INDEX rollouts_force ON rollouts (state) WHERE state IN ('scheduled', 'running', 'paused', 'complete', 'reverting');

CREATE TABLE device_groups (
    name       TEXT    PRIMARY KEY,
    product    TEXT    NOT NULL, -- '': of all
    filter     TEXT    NOT NULL,
    changed_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE deployments ADD COLUMN rollout   INTEGER REFERENCES rollouts (id);    -- NULL: none
ALTER TABLE deployments ADD COLUMN phase     INTEGER NOT NULL DEFAULT 0; -- index, by which the device came in
ALTER TABLE deployments ADD COLUMN class     TEXT    NOT NULL DEFAULT ''; -- of the failure
ALTER TABLE deployments ADD COLUMN tries     INTEGER NOT NULL DEFAULT 0;
ALTER TABLE deployments ADD COLUMN assurance TEXT    NOT NULL DEFAULT '' CHECK (assurance IN ('', 'none', 'shared', 'own'));
ALTER TABLE deployments ADD COLUMN heard     INTEGER NOT NULL DEFAULT 0; -- clock of its latest change
-- Counted once a second for each rollout in force, and for a poll that would join one.
CREATE INDEX deployments_rollout ON deployments (rollout, phase, state, class, tries, assurance, heard, device) WHERE rollout IS NOT NULL;
CREATE INDEX deployments_active ON deployments (rollout, heard) WHERE rollout IS NOT NULL AND state IN ('offered', 'downloading', 'verifying', 'rebooting', 'trial', 'unproven');

ALTER TABLE devices ADD COLUMN tags       TEXT    NOT NULL DEFAULT ''; -- JSON array; '': none
ALTER TABLE devices ADD COLUMN attributes TEXT    NOT NULL DEFAULT ''; -- JSON object; '': none
ALTER TABLE devices ADD COLUMN ask        TEXT    NOT NULL DEFAULT ''; -- fleet.NativeAsk of its latest poll; '': none
ALTER TABLE devices ADD COLUMN failures   INTEGER NOT NULL DEFAULT 0;  -- of releases, in a row
ALTER TABLE devices ADD COLUMN forced     INTEGER NOT NULL DEFAULT 0;  -- rollout; 0: none
ALTER TABLE devices ADD COLUMN heard      INTEGER NOT NULL DEFAULT 0;  -- clock
UPDATE devices SET heard = 1 WHERE last_seen > 0;

-- An operator said that devices get nothing of it but by rollouts, the first one included.
ALTER TABLE products ADD COLUMN rollouts_only INTEGER NOT NULL DEFAULT 0;

-- The last decisions of each device, fleet.KeepDecisions of one.
CREATE TABLE decisions (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    device  TEXT    NOT NULL REFERENCES devices (id),
    time    INTEGER NOT NULL,
    verdict TEXT    NOT NULL,
    rollout INTEGER NOT NULL, -- 0: none
    version TEXT    NOT NULL,
    why     TEXT    NOT NULL
) STRICT;
CREATE INDEX decisions_device ON decisions (device);
