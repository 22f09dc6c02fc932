package adminapi

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Problem is the body of every error (RFC 9457), with a code for machines and a
// hint for people.
type Problem struct {
	Title  string              `json:"title" doc:"the status in words"`
	Status int                 `json:"status"`
	Detail string              `json:"detail" doc:"what is wrong, for people"`
	Code   string              `json:"code" doc:"what is wrong, for machines; stable"`
	Hint   string              `json:"hint,omitempty" doc:"what to do next"`
	Errors []*huma.ErrorDetail `json:"errors,omitempty" doc:"where in the request"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus is for huma.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType is for huma.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// statusOf is the one table from the domain's codes to HTTP.
var statusOf = map[fleet.Code]int{
	fleet.CodeInvalid:         http.StatusBadRequest,
	fleet.CodeNotFound:        http.StatusNotFound,
	fleet.CodeConflict:        http.StatusConflict,
	fleet.CodeUnauthenticated: http.StatusUnauthorized,
	fleet.CodeForbidden:       http.StatusForbidden,
	fleet.CodeReplay:          http.StatusConflict,
	fleet.CodeTooLarge:        http.StatusRequestEntityTooLarge,
	fleet.CodeNoSpace:         http.StatusInsufficientStorage,
	fleet.CodeBusy:            http.StatusServiceUnavailable,
	fleet.CodeInternal:        http.StatusInternalServerError,
}

// problem makes an answer of an error. What is not the caller's fault is logged,
// not sent.
func (s *server) problem(ctx context.Context, err error) *Problem {
	var e *fleet.Error
	if !errors.As(err, &e) || statusOf[e.Code] == 0 {
		e = &fleet.Error{Code: fleet.CodeInternal}
	}
	if e.Code == fleet.CodeInternal {
		if ctx.Err() == nil {
			s.Log.ErrorContext(ctx, "operator's call failed", "error", err)
		}
		e = &fleet.Error{Code: fleet.CodeInternal, Message: "internal error", Hint: "the server's log says more"}
	}
	n := statusOf[e.Code]
	return &Problem{Title: http.StatusText(n), Status: n, Detail: e.Message, Code: string(e.Code), Hint: e.Hint}
}

// fail is what handlers return.
func (s *server) fail(ctx context.Context, err error) error {
	p := s.problem(ctx, err)
	if p.Status == http.StatusServiceUnavailable {
		return huma.ErrorWithHeaders(p, http.Header{"Retry-After": {retryAfter()}})
	}
	return p
}

// retryAfter spreads those who come back, in seconds.
func retryAfter() string { return strconv.Itoa(1 + rand.IntN(10)) }

func init() {
	// huma's own errors (a body that does not fit the schema) get our form.
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		p := &Problem{Title: http.StatusText(status), Status: status, Detail: msg, Code: codeOf(status)}
		for _, err := range errs {
			var ours *Problem
			if errors.As(err, &ours) {
				return ours
			}
			var d huma.ErrorDetailer
			if errors.As(err, &d) {
				// The value is left away: it may be a key.
				e := d.ErrorDetail()
				p.Errors = append(p.Errors, &huma.ErrorDetail{Message: e.Message, Location: e.Location})
			}
		}
		return p
	}
}

func codeOf(status int) string {
	switch status {
	case http.StatusUnprocessableEntity:
		return string(fleet.CodeInvalid)
	}
	for code, n := range statusOf {
		if n == status && code != fleet.CodeReplay {
			return string(code)
		}
	}
	if status >= 400 && status < 500 {
		return string(fleet.CodeInvalid)
	}
	return string(fleet.CodeInternal)
}
