-- Nothing: SQLite's table of devices gets row numbers here, and a schema's number means the
-- same in both databases.

-- +goose Up

SELECT 1;
