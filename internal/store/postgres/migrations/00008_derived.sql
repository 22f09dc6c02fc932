-- As sqlite/migrations/00008_derived.sql.

-- +goose Up

-- Those that were taken in before were offered to nobody, and nobody looked into them: what
-- comes with a release from now on is applied first. Pushing the file again brings them back.
DELETE FROM streams WHERE kind <> 'raw';

ALTER TABLE streams ADD COLUMN sheet_digest bytea; -- SHA-256 of sheet; NULL: a raw one
ALTER TABLE streams ADD COLUMN proven smallint NOT NULL DEFAULT 0; -- the image was made out of it here
CREATE INDEX streams_sheet ON streams (sheet_digest) WHERE sheet_digest IS NOT NULL;

ALTER TABLE deployments ADD COLUMN raw_only smallint NOT NULL DEFAULT 0; -- a derived stream failed on the device

CREATE TABLE derivations (
    release_id bigint   NOT NULL REFERENCES releases (id),
    base       bytea    NOT NULL CHECK (length(base) = 32), -- SHA-256 of the image; zeros: none, the compressed image
    profile    smallint NOT NULL,                            -- of the coder
    state      text     NOT NULL CHECK (state IN ('making', 'made', 'dropped', 'failed')),
    devices    bigint   NOT NULL, -- that it was of use to, when it was begun
    percent    smallint NOT NULL,
    sent       bigint   NOT NULL, -- bytes; 0: not known
    stream     bytea,             -- digest; NULL: not made
    reason     text     NOT NULL,
    tries      smallint NOT NULL, -- that failed
    maker      text     NOT NULL, -- server that makes it: compare and set
    lease      bigint   NOT NULL, -- until when
    changed_at bigint   NOT NULL,
    PRIMARY KEY (release_id, base, profile)
);

-- The seed of the server's stream key, sealed as keys are. id is the only row's: 1.
CREATE TABLE stream_key (
    id         smallint PRIMARY KEY CHECK (id = 1),
    sealed     bytea    NOT NULL,
    created_at bigint   NOT NULL
);
