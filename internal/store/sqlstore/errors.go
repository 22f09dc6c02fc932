package sqlstore

import (
	"database/sql"
	"errors"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// notFound turns "no row" into the domain's error with that message.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.Errorf(fleet.CodeNotFound, format, args...)
	}
	return err
}
