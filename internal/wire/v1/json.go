package v1

import (
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// retryLater spreads the come-back of devices that were turned away together:
// 5 to 30 s, drawn for each.
func retryLater(w http.ResponseWriter) {
	w.Header().Set("Retry-After", strconv.Itoa(5+rand.IntN(26)))
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, string(fleet.CodeInternal), "internal error")
		return
	}
	writeBody(w, status, b)
}

func writeBody(w http.ResponseWriter, status int, b []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(b) // who hung up is not told
}

type errorBody struct {
	Error string `json:"error"`
	Code  string `json:"code"`
}

func writeError(w http.ResponseWriter, status int, code, msg string) {
	b, _ := json.Marshal(errorBody{msg, code}) // two strings always encode
	writeBody(w, status, b)
}

// readBody reads at most limit bytes. A length that is announced is judged before:
// who asks "Expect: 100-continue" sends nothing then.
func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if r.ContentLength > limit {
		w.Header().Set("Connection", "close") // nobody reads the rest
		return nil, fleet.Errorf(fleet.CodeTooLarge, "body is longer than %d bytes", limit)
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLong *http.MaxBytesError
	if errors.As(err, &tooLong) {
		return nil, fleet.Errorf(fleet.CodeTooLarge, "body is longer than %d bytes", limit)
	}
	if err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "body can't be read", Err: err}
	}
	return b, nil
}

// parseDecimal reads a canonical decimal: digits alone, no leading zero, at most
// digits of them.
func parseDecimal(s string, digits int) (uint64, bool) {
	if len(s) == 0 || len(s) > digits || (len(s) > 1 && s[0] == '0') {
		return 0, false
	}
	for i := 0; i < len(s); i++ {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil
}
