package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// SQLSTATEs (PostgreSQL, appendix A).
const (
	stateSerialization = "40001"
	stateDeadlock      = "40P01"
	stateLock          = "55P03" // not had within lock_timeout
	stateDiskFull      = "53100"
	stateReadOnly      = "25006"
	stateCorrupt       = "XX001"
	stateCorruptIndex  = "XX002"
)

func stateOf(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// metAnother: the transaction was ended because of another one, and may be run again.
func metAnother(err error) bool {
	s := stateOf(err)
	return s == stateSerialization || s == stateDeadlock
}

// wrap makes a domain error of what the database said. Errors of the domain pass, and
// so does the end of a request.
func wrap(op string, err error) error {
	var f *fleet.Error
	switch {
	case err == nil, errors.As(err, &f), errors.Is(err, context.Canceled), errors.Is(err, sql.ErrNoRows):
		return err
	}
	e := &fleet.Error{Code: fleet.CodeInternal, Message: "the database failed", Op: op, Err: err}
	state := stateOf(err)
	switch {
	case state == "" && lost(err):
		e.Code, e.Message, e.Hint = fleet.CodeBusy, "the database does not answer", "try again in a moment"
	case state == stateDiskFull:
		e.Code, e.Message, e.Hint = fleet.CodeNoSpace, "the database's disk is full", "make room on it"
	case state == stateReadOnly:
		e.Code, e.Message, e.Hint = fleet.CodeBusy, "the database takes no writes: it may be a standby", "point --database at the primary"
	case state == stateLock, metAnother(err):
		e.Code, e.Message, e.Hint = fleet.CodeBusy, "the database is busy with other writes", "try again in a moment"
	case state == stateCorrupt, state == stateCorruptIndex:
		e.Message, e.Hint = "the database is damaged", damagedHint
	case away(state):
		e.Code, e.Message, e.Hint = fleet.CodeBusy, "the database is not there just now", "try again in a moment"
	}
	return e
}

// away are the classes that pass by themselves: connection exceptions, insufficient
// resources, operator intervention, and a transaction that was ended for idling.
func away(state string) bool {
	return strings.HasPrefix(state, "08") || strings.HasPrefix(state, "53") || strings.HasPrefix(state, "57") || state == "25P03"
}

// lost: the connection broke, was never made, or did not answer in time.
func lost(err error) bool {
	var n net.Error
	var c *pgconn.ConnectError
	return errors.As(err, &n) || errors.As(err, &c) || pgconn.Timeout(err) || pgconn.SafeToRetry(err) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, pgconn.ErrConnClosed) || errors.Is(err, driver.ErrBadConn)
}
