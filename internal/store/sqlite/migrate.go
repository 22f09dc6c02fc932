package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrate brings the tables up to date. Migrations only go up: a program that is
// older than the file refuses it instead of guessing what a newer one meant.
func migrate(ctx context.Context, db *sql.DB, path string, tell func(from, to int64)) error {
	p, err := migrations(db)
	if err != nil {
		return err
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if have > want {
		return sqlstore.NewerError(path, have, want)
	}
	if have == want {
		return nil
	}
	if have > 0 && tell != nil {
		tell(have, want)
	}
	return withoutReferences(ctx, db, func() error {
		if _, err := p.Up(ctx); err != nil {
			return fmt.Errorf("migrations: %w", err)
		}
		return nil
	})
}

// withoutReferences runs f while db's one connection checks no foreign keys: a table that others
// refer to is replaced by one of its name, and SQLite turns checks on and off outside of
// transactions alone (sqlite.org/lang_altertable.html, 7).
func withoutReferences(ctx context.Context, db *sql.DB, f func() error) error {
	if _, err := db.ExecContext(ctx, "PRAGMA foreign_keys = 0"); err != nil {
		return err
	}
	err := f()
	_, e := db.ExecContext(context.WithoutCancel(ctx), "PRAGMA foreign_keys = 1")
	return errors.Join(err, e)
}

func migrations(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()),
		goose.WithGoMigrations(fillSlots()))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return p, nil
}

// versions are the file's schema and this program's, without a write: goose's own
// look makes its table where there is none.
func versions(ctx context.Context, db *sql.DB) (have, want int64, err error) {
	p, err := migrations(db)
	if err != nil {
		return 0, 0, err
	}
	for _, s := range p.ListSources() {
		want = max(want, s.Version)
	}
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied = 1").Scan(&have)
	return have, want, err
}
