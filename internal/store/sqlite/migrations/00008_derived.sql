-- Derived streams: sheets by their digests, what servers make by themselves, the key that
-- they sign it with, and devices on which one failed (docs/design/patches-server.md).

-- +goose Up

-- Those that were taken in before were offered to nobody, and nobody looked into them: what
-- comes with a release from now on is applied first. Pushing the file again brings them back.
DELETE FROM streams WHERE kind <> 'raw';

ALTER TABLE streams ADD COLUMN sheet_digest BLOB; -- SHA-256 of sheet; NULL: a raw one
ALTER TABLE streams ADD COLUMN proven INTEGER NOT NULL DEFAULT 0; -- the image was made out of it here
CREATE INDEX streams_sheet ON streams (sheet_digest) WHERE sheet_digest IS NOT NULL;

ALTER TABLE deployments ADD COLUMN raw_only INTEGER NOT NULL DEFAULT 0; -- a derived stream failed on the device

CREATE TABLE derivations (
    release_id INTEGER NOT NULL REFERENCES releases (id),
    base       BLOB    NOT NULL CHECK (length(base) = 32), -- SHA-256 of the image; zeros: none, the compressed image
    profile    INTEGER NOT NULL,                            -- of the coder
    state      TEXT    NOT NULL CHECK (state IN ('making', 'made', 'dropped', 'failed')),
    devices    INTEGER NOT NULL, -- that it was of use to, when it was begun
    percent    INTEGER NOT NULL,
    sent       INTEGER NOT NULL, -- bytes; 0: not known
    stream     BLOB,             -- digest; NULL: not made
    reason     TEXT    NOT NULL,
    tries      INTEGER NOT NULL, -- that failed
    maker      TEXT    NOT NULL, -- server that makes it: compare and set
    lease      INTEGER NOT NULL, -- until when
    changed_at INTEGER NOT NULL,
    PRIMARY KEY (release_id, base, profile)
) STRICT, WITHOUT ROWID;

-- The seed of the server's stream key, sealed as keys are. id is the only row's: 1.
CREATE TABLE stream_key (
    id         INTEGER PRIMARY KEY CHECK (id = 1),
    sealed     BLOB    NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;
