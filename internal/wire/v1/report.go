package v1

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"math"
	"net/http"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// envelope is a signed body: mac = HMAC(key, nonce + timestamp + ("1"|"0") + payload).
type envelope struct {
	sig       signature
	encrypted bool
	payload   string // base64, as it was signed
}

// decimal takes a JSON number or a string, as its text: clients send both.
type decimal string

func (d *decimal) UnmarshalJSON(b []byte) error {
	var s string
	if len(b) > 0 && b[0] == '"' {
		if err := json.Unmarshal(b, &s); err != nil {
			return err
		}
	} else if string(b) != "null" {
		s = string(b)
	}
	*d = decimal(s)
	return nil
}

// parseBody splits a report's body into the envelope, nil where there is none, and
// the JSON of the report.
func parseBody(body []byte) (*envelope, []byte, error) {
	var e struct {
		Nonce     decimal         `json:"nonce"`
		Timestamp decimal         `json:"timestamp"`
		Encrypted json.RawMessage `json:"encrypted"`
		Payload   *string         `json:"payload"`
		MAC       *string         `json:"mac"`
	}
	if err := json.Unmarshal(body, &e); err != nil {
		return nil, nil, fleet.Errorf(fleet.CodeInvalid, "the body is not JSON of the expected form")
	}
	if e.Payload == nil && e.MAC == nil {
		return nil, body, nil
	}
	if e.Payload == nil || e.MAC == nil {
		return nil, nil, fleet.Errorf(fleet.CodeInvalid, "the envelope is not whole")
	}
	env := &envelope{sig: signature{string(e.Nonce), string(e.Timestamp), *e.MAC}, payload: *e.Payload}
	switch string(bytes.TrimSpace(e.Encrypted)) {
	case "true", "1", `"1"`:
		env.encrypted = true
	case "false", "0", `"0"`, "", "null":
	default:
		return nil, nil, fleet.Errorf(fleet.CodeInvalid, "the envelope's encrypted is neither true nor false")
	}
	inner, err := base64.StdEncoding.DecodeString(env.payload)
	if err != nil {
		return nil, nil, fleet.Errorf(fleet.CodeInvalid, "the envelope's payload is not base64")
	}
	return env, inner, nil
}

// parseReport reads {"fota_status":{...}}. A field of the wrong type was not said:
// fielded clients differ, and a report that is refused is sent for ever.
func parseReport(body []byte) (fleet.Report, error) {
	var outer struct {
		Status map[string]json.RawMessage `json:"fota_status"`
	}
	if err := json.Unmarshal(body, &outer); err != nil {
		return fleet.Report{}, fleet.Errorf(fleet.CodeInvalid, "the report is not JSON of the expected form")
	}
	if outer.Status == nil {
		return fleet.Report{}, fleet.Errorf(fleet.CodeInvalid, "fota_status is missing")
	}
	f := outer.Status
	return fleet.Report{
		ChunkReceived: member[int](f, "chunk_received"),
		TotalChunks:   member[int](f, "total_chunks"),
		Progress:      finite(member[float64](f, "progress")),
		Verified:      member[bool](f, "verified"),
		BootStatus:    member[string](f, "boot_status"),
		NewVersion:    member[string](f, "new_version"),
		BootCount:     member[int](f, "boot_count"),
		Rollback:      member[bool](f, "rollback"),
		Error:         member[string](f, "error"),
	}, nil
}

func member[T any](f map[string]json.RawMessage, name string) *T {
	raw, ok := f[name]
	if !ok || string(raw) == "null" {
		return nil
	}
	var v T
	if json.Unmarshal(raw, &v) != nil {
		return nil
	}
	return &v
}

func finite(p *float64) *float64 {
	if p == nil || math.IsInf(*p, 0) || math.IsNaN(*p) {
		return nil
	}
	return p
}

func (s *Server) report(w http.ResponseWriter, r *http.Request) {
	if err := s.takeReport(w, r); err != nil {
		s.fail(w, r, err)
		return
	}
	// It is durable.
	writeBody(w, http.StatusOK, []byte(`{"status":"success"}`))
}

func (s *Server) takeReport(w http.ResponseWriter, r *http.Request) error {
	body, err := readBody(w, r, maxReportBody)
	if err != nil {
		return err
	}
	env, inner, parseErr := parseBody(body)
	// Who speaks comes first: a stranger learns nothing of the form.
	c, err := s.identify(r, env)
	if err != nil {
		return err
	}
	if c.nonce > 0 {
		defer c.dev.posted()
	}
	if parseErr != nil {
		return parseErr
	}
	rep, err := parseReport(inner)
	if err != nil {
		return err
	}
	rel, err := s.offered(r.Context(), c)
	if err != nil {
		return err
	}
	err = s.c.Deployments.Report(r.Context(), c.dev.id, rel, rep, c.proven, c.nonce, s.c.Now())
	if fleet.CodeOf(err) == fleet.CodeUnauthenticated {
		err = errWho // it spoke a stronger wire since
	}
	return err
}
