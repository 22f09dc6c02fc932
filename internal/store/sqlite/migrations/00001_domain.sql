-- The domain of internal/fleet. Times are microseconds since 1970, UTC, 0 for
-- never; flags are 0 or 1; states and names of events are the texts of the API.

-- +goose Up

-- id is the only row's: 1.
CREATE TABLE catalogue (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    generation INTEGER NOT NULL -- rises in the transaction of each change of releases
) STRICT;
INSERT INTO catalogue (id, generation) VALUES (1, 1);

CREATE TABLE releases (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    product      TEXT    NOT NULL,
    version      TEXT    NOT NULL,
    digest       BLOB    NOT NULL CHECK (length(digest) = 32), -- SHA-256 of the image
    size         INTEGER NOT NULL CHECK (size > 0),            -- bytes
    chip         TEXT    NOT NULL,
    project      TEXT    NOT NULL,
    app_version  TEXT    NOT NULL,
    idf_version  TEXT    NOT NULL,
    chunk_size   INTEGER NOT NULL CHECK (chunk_size > 0),      -- bytes
    state        TEXT    NOT NULL CHECK (state IN ('published', 'withdrawn')),
    -- Whole seconds and unique: v1 devices tell newer from older by it.
    published_at INTEGER NOT NULL UNIQUE CHECK (published_at % 1000000 = 0),
    withdrawn_at INTEGER NOT NULL DEFAULT 0,
    UNIQUE (product, version)
) STRICT;

CREATE TABLE devices (
    id               TEXT    PRIMARY KEY,
    product          TEXT    NOT NULL, -- '': the only product there is, or the default one
    added_at         INTEGER NOT NULL,
    last_seen        INTEGER NOT NULL DEFAULT 0,
    running_version  TEXT    NOT NULL DEFAULT '',
    nonce            INTEGER NOT NULL DEFAULT 0 CHECK (nonce >= 0),
    nonce_reset_at   INTEGER NOT NULL DEFAULT 0, -- what was learnt before counts no more
    clocked          INTEGER NOT NULL DEFAULT 0,
    signed           INTEGER NOT NULL DEFAULT 0,
    rollback_wanted  INTEGER NOT NULL DEFAULT 0,
    rollback_reason  TEXT    NOT NULL DEFAULT '',
    rollback_sent_at INTEGER NOT NULL DEFAULT 0,
    retry_at         INTEGER NOT NULL DEFAULT 0 CHECK (retry_at % 1000000 = 0)
) STRICT, WITHOUT ROWID;

CREATE TABLE deployments (
    device          TEXT    NOT NULL REFERENCES devices (id),
    release_id      INTEGER NOT NULL REFERENCES releases (id),
    state           TEXT    NOT NULL CHECK (state IN ('offered', 'downloading', 'verifying', 'rebooting', 'confirmed', 'reverted', 'failed', 'cancelled')),
    chunks_received INTEGER NOT NULL,
    chunks_total    INTEGER NOT NULL,
    verified        INTEGER NOT NULL,
    boot_status     TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    proven          INTEGER NOT NULL,
    started_at      INTEGER NOT NULL,
    updated_at      INTEGER NOT NULL,
    PRIMARY KEY (device, release_id)
) STRICT, WITHOUT ROWID;

-- A device's latest deployment is the first of this index: a proven one before any that is not.
CREATE INDEX deployments_latest ON deployments (device, proven DESC, started_at DESC, release_id DESC);

CREATE TABLE events (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    time    INTEGER NOT NULL,
    device  TEXT    NOT NULL, -- '': of no device
    version TEXT    NOT NULL,
    name    TEXT    NOT NULL,
    detail  TEXT    NOT NULL,
    proven  INTEGER NOT NULL
) STRICT;

CREATE INDEX events_device ON events (device);
CREATE INDEX events_unproven ON events (device) WHERE proven = 0;

-- Keys are sealed with AES-256-GCM under secret.key; see keys.go for the associated data.
CREATE TABLE keys (
    id         TEXT    PRIMARY KEY, -- 16 hex digits, random
    owner_kind TEXT    NOT NULL CHECK (owner_kind IN ('device', 'product')),
    owner      TEXT    NOT NULL,
    purpose    TEXT    NOT NULL,
    state      TEXT    NOT NULL CHECK (state IN ('active', 'retired')),
    sealed     BLOB    NOT NULL,    -- nonce, ciphertext, tag; empty once retired
    created_at INTEGER NOT NULL,
    retired_at INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX keys_active ON keys (owner_kind, owner, purpose) WHERE state = 'active';

-- A known text sealed under secret.key: it tells the wrong file at once.
CREATE TABLE seal (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    sealed  BLOB    NOT NULL
) STRICT;

CREATE TABLE tokens (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    name       TEXT    NOT NULL,
    hash       BLOB    NOT NULL UNIQUE CHECK (length(hash) = 32), -- SHA-256 of the token
    created_at INTEGER NOT NULL,
    revoked_at INTEGER NOT NULL DEFAULT 0
) STRICT;
