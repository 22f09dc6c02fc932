-- Devices in a table with row numbers. WITHOUT ROWID keeps whole rows in the inner pages of
-- the tree too: of a million devices, at 300 bytes each, that is six levels and 6,064 inner
-- pages, which no cache holds. An index of names and a table of rows have 236 of them.
-- PostgreSQL's tables are so from the start.

-- +goose Up

CREATE TABLE devices_new (
    id               TEXT    NOT NULL PRIMARY KEY,
    product          TEXT    NOT NULL, -- '': the only product there is, or the default one
    added_at         INTEGER NOT NULL,
    last_seen        INTEGER NOT NULL DEFAULT 0,
    running_version  TEXT    NOT NULL DEFAULT '',
    strongest_wire   TEXT    NOT NULL DEFAULT '' CHECK (strongest_wire IN ('', 'v1', 'mac-only', 'signed')),
    signed           INTEGER NOT NULL DEFAULT 0, -- a MAC proved it once
    -- Of the v1 wire.
    nonce            INTEGER NOT NULL DEFAULT 0 CHECK (nonce >= 0),
    nonce_reset_at   INTEGER NOT NULL DEFAULT 0, -- what was learnt before counts no more
    clocked          INTEGER NOT NULL DEFAULT 0,
    -- Of the native wire.
    native_nonce     INTEGER NOT NULL DEFAULT 0, -- highest taken, 2^63-1 at most
    native_keys      INTEGER NOT NULL DEFAULT 0, -- rises with every change of its native keys
    native_boot      INTEGER NOT NULL DEFAULT 0, -- of the latest poll
    native_verdict   TEXT    NOT NULL DEFAULT '', -- what it was told last, as its timeline has it
    ask              TEXT    NOT NULL DEFAULT '', -- fleet.NativeAsk of its latest poll; '': none
    hardware         TEXT    NOT NULL DEFAULT '', -- for people
    epoch            INTEGER NOT NULL DEFAULT 0,  -- of what it confirmed last, as the next two
    sequence         INTEGER NOT NULL DEFAULT 0,
    security_version INTEGER NOT NULL DEFAULT 0,
    list_version     INTEGER NOT NULL DEFAULT 0,  -- of the key list that it holds
    slots            INTEGER NOT NULL DEFAULT 0,  -- how many it has; 0: not said
    running_slot     INTEGER NOT NULL DEFAULT 0,  -- 255: the factory image
    health           TEXT    NOT NULL DEFAULT '', -- fleet.Health as JSON; '': not said
    -- What people say of it and order.
    tags             TEXT    NOT NULL DEFAULT '', -- JSON array; '': none
    attributes       TEXT    NOT NULL DEFAULT '', -- JSON object; '': none
    rollback_wanted  INTEGER NOT NULL DEFAULT 0,
    rollback_reason  TEXT    NOT NULL DEFAULT '',
    rollback_sent_at INTEGER NOT NULL DEFAULT 0,
    rollback_number  INTEGER NOT NULL DEFAULT 0, -- rises with every order to go back
    retry_at         INTEGER NOT NULL DEFAULT 0 CHECK (retry_at % 1000000 = 0),
    -- Of rollouts.
    failures         INTEGER NOT NULL DEFAULT 0, -- of releases, in a row
    forced           INTEGER NOT NULL DEFAULT 0, -- rollout; 0: none
    heard            INTEGER NOT NULL DEFAULT 0  -- clock
) STRICT;
INSERT INTO devices_new (id, product, added_at, last_seen, running_version, strongest_wire, signed, nonce, nonce_reset_at, clocked,
    native_nonce, native_keys, native_boot, native_verdict, ask, hardware, epoch, sequence, security_version, list_version, slots, running_slot, health,
    tags, attributes, rollback_wanted, rollback_reason, rollback_sent_at, rollback_number, retry_at, failures, forced, heard)
  SELECT id, product, added_at, last_seen, running_version, strongest_wire, signed, nonce, nonce_reset_at, clocked,
    native_nonce, native_keys, native_boot, native_verdict, ask, hardware, epoch, sequence, security_version, list_version, slots, running_slot, health,
    tags, attributes, rollback_wanted, rollback_reason, rollback_sent_at, rollback_number, retry_at, failures, forced, heard
  FROM devices ORDER BY id;
DROP TABLE devices;
ALTER TABLE devices_new RENAME TO devices;
