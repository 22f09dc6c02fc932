-- Which signed products' releases go out over v1 too.

-- +goose Up

ALTER TABLE products ADD COLUMN allow_v1 INTEGER NOT NULL DEFAULT 0; -- an operator said so
