package postgres

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrate brings the tables up to date. Migrations only go up: a program that is older
// than the tables refuses them instead of guessing what a newer one meant.
func migrate(ctx context.Context, db *sql.DB, name string, tell func(from, to int64)) error {
	p, err := migrations(db)
	if err != nil {
		return err
	}
	have, want, err := versions(ctx, p, db)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if have > want {
		return sqlstore.NewerError(name, have, want)
	}
	if have == want {
		return nil
	}
	if have > 0 && tell != nil {
		tell(have, want)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	return nil
}

func migrations(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return nil, err
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return nil, fmt.Errorf("migrations: %w", err)
	}
	return p, nil
}

// versions are the tables' schema, 0 where there are none, and this program's. goose's own
// look would make its table.
func versions(ctx context.Context, p *goose.Provider, db *sql.DB) (have, want int64, err error) {
	for _, s := range p.ListSources() {
		want = max(want, s.Version)
	}
	var made bool
	if err := db.QueryRowContext(ctx, "SELECT to_regclass('goose_db_version') IS NOT NULL").Scan(&made); err != nil || !made {
		return 0, want, err
	}
	err = db.QueryRowContext(ctx, "SELECT coalesce(max(version_id), 0) FROM goose_db_version WHERE is_applied").Scan(&have)
	return have, want, err
}
