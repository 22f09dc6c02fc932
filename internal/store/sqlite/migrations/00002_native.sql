-- The native wire (docs/format/exchange.md, docs/api/native.md): key lists,
-- manifests, streams, the signature policy of products, and how devices become
-- known. A server has one set of roots and so one chain of key lists: several
-- vendors are several servers.

-- +goose Up

-- All that was ever taken in that is signed, in its order: whoever compares two
-- copies of it sees what was hidden. Nothing is changed or taken out.
CREATE TABLE manifests (
    id               INTEGER PRIMARY KEY AUTOINCREMENT,
    digest           BLOB    NOT NULL UNIQUE CHECK (length(digest) = 32), -- SHA-256 of the envelope
    kind             TEXT    NOT NULL CHECK (kind IN ('manifest', 'keylist')),
    envelope         BLOB    NOT NULL, -- empty for a key list: keylists has it
    product          TEXT    NOT NULL, -- '' for a key list, as the next
    version          TEXT    NOT NULL,
    epoch            INTEGER NOT NULL,
    sequence         INTEGER NOT NULL, -- of a key list: its version
    security_version INTEGER NOT NULL,
    image_digest     BLOB    NOT NULL, -- SHA-256 of the image; empty for a key list
    added_at         INTEGER NOT NULL
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER manifests_stay BEFORE UPDATE ON manifests BEGIN SELECT raise(ABORT, 'manifests are only added'); END;
-- +goose StatementEnd
-- +goose StatementBegin
CREATE TRIGGER manifests_remain BEFORE DELETE ON manifests BEGIN SELECT raise(ABORT, 'manifests are only added'); END;
-- +goose StatementEnd

-- deployments gets more states, and releases lose UNIQUE (product, version),
-- which holds for unsigned ones only: an old image that is issued anew keeps its
-- version's name. SQLite changes neither in place. The child goes first, so that
-- no row ever refers to a release that is not there.
CREATE TABLE deployments_before AS SELECT * FROM deployments;
DROP INDEX deployments_latest;
DROP TABLE deployments;

CREATE TABLE releases_new (
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
    -- Of the manifest; 0 and NULL where there is none: an unsigned release.
    epoch            INTEGER NOT NULL DEFAULT 0,
    sequence         INTEGER NOT NULL DEFAULT 0,
    security_version INTEGER NOT NULL DEFAULT 0,
    hardware         TEXT    NOT NULL DEFAULT '', -- for people; the manifest's own bytes decide
    manifest_digest  BLOB    REFERENCES manifests (digest) CHECK ((manifest_digest IS NULL) = (sequence = 0))
) STRICT;
INSERT INTO releases_new (id, product, version, digest, size, chip, project, app_version, idf_version, chunk_size, state, published_at, withdrawn_at)
    SELECT id, product, version, digest, size, chip, project, app_version, idf_version, chunk_size, state, published_at, withdrawn_at FROM releases;
DROP TABLE releases;
ALTER TABLE releases_new RENAME TO releases;
CREATE INDEX releases_version ON releases (product, version);
CREATE UNIQUE INDEX releases_unsigned ON releases (product, version) WHERE manifest_digest IS NULL;
CREATE UNIQUE INDEX releases_signed ON releases (product, epoch, sequence) WHERE manifest_digest IS NOT NULL;

CREATE TABLE deployments (
    device          TEXT    NOT NULL REFERENCES devices (id),
    release_id      INTEGER NOT NULL REFERENCES releases (id),
    state           TEXT    NOT NULL CHECK (state IN ('pending', 'offered', 'downloading', 'verifying', 'rebooting', 'trial', 'confirmed', 'reverted', 'unproven', 'failed', 'cancelled', 'skipped')),
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
INSERT INTO deployments SELECT * FROM deployments_before;
DROP TABLE deployments_before;

-- A device's latest deployment is the first of this index: a proven one before any that is not.
CREATE INDEX deployments_latest ON deployments (device, proven DESC, started_at DESC, release_id DESC);

CREATE TABLE keylists (
    version             INTEGER PRIMARY KEY,
    generation          INTEGER NOT NULL,
    first_of_generation INTEGER NOT NULL, -- it began the generation here, and is served by its number
    digest              BLOB    NOT NULL UNIQUE REFERENCES manifests (digest),
    envelope            BLOB    NOT NULL,
    added_at            INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX keylists_generation ON keylists (generation) WHERE first_of_generation = 1;

CREATE TABLE streams (
    digest     BLOB    PRIMARY KEY CHECK (length(digest) = 32), -- SHA-256 of the stream file
    release_id INTEGER NOT NULL REFERENCES releases (id),
    kind       TEXT    NOT NULL CHECK (kind IN ('raw', 'patch', 'compressed')),
    chunk      INTEGER NOT NULL CHECK (chunk > 0),              -- bytes
    length     INTEGER NOT NULL CHECK (length > 0),             -- of the file, bytes
    root       BLOB    NOT NULL CHECK (length(root) = 32),
    sheet      BLOB    NOT NULL                                 -- the stream sheet's envelope; empty for a raw one
) STRICT, WITHOUT ROWID;
CREATE INDEX streams_release ON streams (release_id);

-- A row is made by the first signed release, by a key list that names the product,
-- or by an operator; without one the product takes unsigned images.
CREATE TABLE products (
    name        TEXT    PRIMARY KEY,
    signed_only INTEGER NOT NULL,           -- unsigned images are refused on every way in
    by_operator INTEGER NOT NULL DEFAULT 0, -- an operator said so: nothing else changes it
    added_at    INTEGER NOT NULL,
    changed_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

ALTER TABLE devices ADD COLUMN strongest_wire TEXT NOT NULL DEFAULT '' CHECK (strongest_wire IN ('', 'v1', 'mac-only', 'signed'));
UPDATE devices SET strongest_wire = 'v1' WHERE signed = 1;
ALTER TABLE devices ADD COLUMN native_nonce    INTEGER NOT NULL DEFAULT 0; -- highest taken, 2^63-1 at most
ALTER TABLE devices ADD COLUMN native_keys     INTEGER NOT NULL DEFAULT 0; -- rises with every change of its native keys
ALTER TABLE devices ADD COLUMN native_boot     INTEGER NOT NULL DEFAULT 0; -- of the latest poll
ALTER TABLE devices ADD COLUMN native_verdict  TEXT    NOT NULL DEFAULT ''; -- what it was told last, as its timeline has it
ALTER TABLE devices ADD COLUMN hardware        TEXT    NOT NULL DEFAULT ''; -- for people
ALTER TABLE devices ADD COLUMN epoch           INTEGER NOT NULL DEFAULT 0; -- of what it confirmed last, as the next two
ALTER TABLE devices ADD COLUMN sequence        INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN security_version INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN list_version    INTEGER NOT NULL DEFAULT 0; -- of the key list that it holds
ALTER TABLE devices ADD COLUMN rollback_number INTEGER NOT NULL DEFAULT 0; -- rises with every order to go back

-- The latest reports of each device by their names, 32 of one: the same again is
-- acknowledged again and changes nothing. content is SHA-256 of what it says: a
-- device that was flashed anew counts from the start and says something else.
CREATE TABLE native_reports (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    device  TEXT    NOT NULL REFERENCES devices (id),
    boot    INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    content BLOB    NOT NULL,
    UNIQUE (device, boot, number)
) STRICT;

-- Several native keys of a device live while one is exchanged: each has a number.
ALTER TABLE keys ADD COLUMN number INTEGER NOT NULL DEFAULT 0 CHECK (number BETWEEN 0 AND 255);
DROP INDEX keys_active;
CREATE UNIQUE INDEX keys_active ON keys (owner_kind, owner, purpose, number) WHERE state = 'active';

CREATE TABLE enrol_tokens (
    id         TEXT    PRIMARY KEY, -- public
    sealed     BLOB    NOT NULL,    -- the secret, as keys are sealed; empty once revoked
    product    TEXT    NOT NULL,
    pattern    TEXT    NOT NULL,    -- of device ids, with * and ?; '': any
    count      INTEGER NOT NULL CHECK (count > 0),
    used       INTEGER NOT NULL DEFAULT 0 CHECK (used BETWEEN 0 AND count),
    approval   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,    -- 0: never
    revoked_at INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE enrolments (
    token        TEXT    NOT NULL REFERENCES enrol_tokens (id),
    device       TEXT    NOT NULL,
    device_nonce BLOB    NOT NULL CHECK (length(device_nonce) = 16),
    server_nonce BLOB    NOT NULL CHECK (length(server_nonce) = 16),
    hardware     TEXT    NOT NULL, -- for people
    status       TEXT    NOT NULL CHECK (status IN ('waiting', 'approved', 'taken')),
    time         INTEGER NOT NULL,
    PRIMARY KEY (token, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX enrolments_device ON enrolments (device);
