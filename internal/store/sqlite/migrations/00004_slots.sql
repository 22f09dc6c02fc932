-- Releases in several builds, one a slot, and where devices run from. Which slot the
-- manifests of before are for is filled in by the next step, migrateslots.go: SQL
-- can't read them.

-- +goose Up

ALTER TABLE releases ADD COLUMN slot INTEGER NOT NULL DEFAULT -1 CHECK (slot BETWEEN -1 AND 15); -- of the manifest; -1: any
DROP INDEX releases_signed;
CREATE UNIQUE INDEX releases_signed ON releases (product, epoch, sequence, slot) WHERE manifest_digest IS NOT NULL;

ALTER TABLE devices ADD COLUMN slots        INTEGER NOT NULL DEFAULT 0; -- how many it has; 0: not said
ALTER TABLE devices ADD COLUMN running_slot INTEGER NOT NULL DEFAULT 0; -- 255: the factory image
