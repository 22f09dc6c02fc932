package sqlstore

import (
	"database/sql"
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// notFound turns "no row" into the domain's error with that message.
func notFound(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fleet.Errorf(fleet.CodeNotFound, format, args...)
	}
	return err
}

// NewerError refuses tables of schema have, where this program knows them up to want:
// what a newer program meant is not guessed. name is the file's or the database's.
func NewerError(name string, have, want int64) error {
	return &fleet.Error{Code: fleet.CodeInvalid,
		Message: fmt.Sprintf("%s was written by a newer version of this program (schema %d, this one knows %d)", name, have, want),
		Hint:    "start that version, or bring a backup from before the upgrade back"}
}
