package sqlite

import (
	"context"
	"database/sql"
	"embed"
	"fmt"
	"io/fs"

	"github.com/pressly/goose/v3"

	"github.com/runnel-fota/runnel/internal/fleet"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// migrate brings the tables up to date. Migrations only go up: a program that is
// older than the file refuses it instead of guessing what a newer one meant.
func migrate(ctx context.Context, db *sql.DB, path string) error {
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	have, want, err := p.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	if have > want {
		return &fleet.Error{Code: fleet.CodeInvalid,
			Message: fmt.Sprintf("%s was written by a newer version of this program (schema %d, this one knows %d)", path, have, want),
			Hint:    "start that version, or bring a backup from before the upgrade back"}
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrations: %w", err)
	}
	return nil
}
