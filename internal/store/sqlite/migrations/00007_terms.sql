-- What operators ask for products, releases that are not published yet, notes and
-- channels of releases, and how devices are doing (docs/design/rollouts.md).

-- +goose Up

ALTER TABLE products ADD COLUMN terms TEXT NOT NULL DEFAULT ''; -- fleet.Terms as JSON; '': none

-- 1: it is not published yet, whatever state says. A third state would need the table
-- made anew, with all that refers to it.
ALTER TABLE releases ADD COLUMN draft   INTEGER NOT NULL DEFAULT 0;
ALTER TABLE releases ADD COLUMN notes   TEXT    NOT NULL DEFAULT '';
ALTER TABLE releases ADD COLUMN channel TEXT    NOT NULL DEFAULT '';
-- fleet.Checked as JSON; '': unsigned, or taken in before this column was there.
ALTER TABLE releases ADD COLUMN checked TEXT    NOT NULL DEFAULT '';

ALTER TABLE devices ADD COLUMN health TEXT NOT NULL DEFAULT ''; -- fleet.Health as JSON; '': not said
