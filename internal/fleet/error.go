package fleet

import (
	"errors"
	"fmt"
)

// Code is the machine's word for an error: stable, in the API, in documents.
type Code string

const (
	CodeInvalid         Code = "invalid"         // the input is wrong; Message says what and where
	CodeNotFound        Code = "not_found"       //
	CodeConflict        Code = "conflict"        // it exists already, and is not the same
	CodeUnauthenticated Code = "unauthenticated" // who are you
	CodeForbidden       Code = "forbidden"       // we know who you are
	CodeReplay          Code = "replay"          // a nonce that was used
	CodeTooLarge        Code = "too_large"       //
	CodeNoSpace         Code = "no_space"        // the disk is full
	CodeBusy            Code = "busy"            // try again later
	CodeInternal        Code = "internal"        // not the caller's fault; details are logged, not sent
)

// Error is what the domain and its stores return.
type Error struct {
	Code    Code
	Message string // for people, lower case, no full stop
	Hint    string // what to do next; may be empty
	Op      string // where, for the log
	Err     error  // the cause, for the log
}

func (e *Error) Error() string {
	s := e.Message
	if e.Op != "" {
		s = e.Op + ": " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an Error without a hint.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// CodeOf is the error's code; CodeInternal for one that is not ours; "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return CodeInternal
}

// ErrListMoved is inside a CodeConflict: what was judged by a key list is to be judged
// by the one that came since.
var ErrListMoved = errors.New("the key list moved")
