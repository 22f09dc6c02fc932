-- As sqlite/migrations/00007_terms.sql.

-- +goose Up

ALTER TABLE products ADD COLUMN terms text NOT NULL DEFAULT ''; -- fleet.Terms as JSON; '': none

-- 1: it is not published yet, whatever state says, as in the other database.
ALTER TABLE releases ADD COLUMN draft   smallint NOT NULL DEFAULT 0;
ALTER TABLE releases ADD COLUMN notes   text     NOT NULL DEFAULT '';
ALTER TABLE releases ADD COLUMN channel text     NOT NULL DEFAULT '';
-- fleet.Checked as JSON; '': unsigned, or taken in before this column was there.
ALTER TABLE releases ADD COLUMN checked text     NOT NULL DEFAULT '';

ALTER TABLE devices ADD COLUMN health text NOT NULL DEFAULT ''; -- fleet.Health as JSON; '': not said
