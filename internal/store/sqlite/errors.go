package sqlite

import (
	"context"
	"errors"

	lib "modernc.org/sqlite/lib"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// primary masks an extended result code (sqlite.org/rescode.html).
const primary = 0xff

// resultCode is SQLite's for err, 0 where it is not SQLite's.
func resultCode(err error) int {
	var e interface{ Code() int } // *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}

// wrap makes a domain error of what the database said. Errors of the domain and
// of the context pass.
func wrap(op string, err error) error {
	var f *fleet.Error
	switch {
	case err == nil, errors.As(err, &f), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	}
	e := &fleet.Error{Code: fleet.CodeInternal, Message: "the database failed", Op: op, Err: err}
	switch resultCode(err) & primary {
	case lib.SQLITE_FULL:
		e.Code, e.Message = fleet.CodeNoSpace, "the disk is full"
		e.Hint = "make room on the data folder's disk"
	case lib.SQLITE_BUSY, lib.SQLITE_LOCKED:
		e.Code, e.Message = fleet.CodeBusy, "another program holds the database"
		e.Hint = "close what else has runnel.db open"
	case lib.SQLITE_CORRUPT, lib.SQLITE_NOTADB:
		e.Message, e.Hint = "the database is damaged", damagedHint
	}
	return e
}

const damagedHint = "stop the server, keep a copy of the data folder, and bring a backup of it back"
