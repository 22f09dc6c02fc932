package v1

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// The operator's calls of the original server, for scripts that exist. product
// and device_id are ours where the original has no word for them.

const (
	defaultChunkSize = 1024 // bytes
	defaultLogs      = 100
	maxLogs          = 1000
)

type uploadBody struct {
	Version   string `json:"version"`
	Size      int64  `json:"size"`
	Hash      string `json:"hash"`
	ChunkSize *int   `json:"chunk_size"`
	Data      string `json:"firmware_data"`
	Product   string `json:"product"`
}

type uploadAnswer struct {
	Status      string   `json:"status"`
	Message     string   `json:"message"`
	Manifest    manifest `json:"manifest"`
	TotalChunks int      `json:"total_chunks"`
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	select {
	case s.uploads <- struct{}{}:
		defer func() { <-s.uploads }()
	default:
		s.fail(w, r, fleet.Errorf(fleet.CodeBusy, "too many uploads at once"))
		return
	}
	// Base64 and the members around it.
	limit := int64(base64.StdEncoding.EncodedLen(int(s.c.MaxImage))) + 4096
	// The server's time-outs are for devices' small bodies. The write's runs from the request's
	// beginning: without this one an upload of more than a minute would get no answer.
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(uploadTimeout))
	_ = rc.SetWriteDeadline(time.Now().Add(uploadTimeout + time.Minute))
	body, err := readBody(w, r, limit)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var u uploadBody
	if err := json.Unmarshal(body, &u); err != nil {
		s.fail(w, r, badJSON(err))
		return
	}
	if u.Version == "" || u.Size == 0 || u.Hash == "" || u.Data == "" {
		s.fail(w, r, fleet.Errorf(fleet.CodeInvalid, "Missing required fields"))
		return
	}
	image, err := base64.StdEncoding.DecodeString(u.Data)
	if err != nil {
		s.fail(w, r, fleet.Errorf(fleet.CodeInvalid, "Invalid base64: %v", err))
		return
	}
	digest := fleet.Digest(sha256.Sum256(image))
	if !strings.EqualFold(u.Hash, digest.String()) {
		s.fail(w, r, fleet.Errorf(fleet.CodeInvalid, "Hash mismatch"))
		return
	}
	if u.Size != int64(len(image)) {
		s.fail(w, r, fleet.Errorf(fleet.CodeInvalid, "Size mismatch: %d bytes announced, %d sent", u.Size, len(image)))
		return
	}
	chunkSize := defaultChunkSize
	if u.ChunkSize != nil {
		chunkSize = *u.ChunkSize
	}
	product := u.Product
	if product == "" {
		product = fleet.DefaultProduct
	}
	rel, _, err := s.c.Publisher.PublishImage(r.Context(), product, u.Version, chunkSize, &digest, bytes.NewReader(image))
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, uploadAnswer{Status: "success", Message: "Firmware " + rel.Version + " uploaded",
		Manifest: manifestOf(&rel, rel.PublishedAt), TotalChunks: rel.Chunks()})
}

// badJSON names the member that has another type; the value may be an image.
func badJSON(err error) error {
	var t *json.UnmarshalTypeError
	if errors.As(err, &t) && t.Field != "" {
		return fleet.Errorf(fleet.CodeInvalid, "Invalid JSON: %s is a %s", t.Field, t.Value)
	}
	return fleet.Errorf(fleet.CodeInvalid, "Invalid JSON")
}

type deviceStatus struct {
	ChunkReceived int    `json:"chunk_received"`
	Verified      bool   `json:"verified"`
	BootStatus    string `json:"boot_status"`
	Rollback      bool   `json:"rollback"`
	Error         string `json:"error"`
	LastUpdate    string `json:"last_update"`
	Proven        bool   `json:"proven"`
}

type statusAnswer struct {
	Manifest     *manifest               `json:"manifest"`
	TotalChunks  int                     `json:"total_chunks"`
	DeviceStatus map[string]deviceStatus `json:"device_status"`
}

func (s *Server) fleetStatus(w http.ResponseWriter, r *http.Request) {
	product := r.URL.Query().Get("product")
	cat, err := s.cat.get(r.Context(), 0)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	deps, err := s.c.Deployments.ListDeployments(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	a := statusAnswer{DeviceStatus: make(map[string]deviceStatus, len(deps))}
	var newest *fleet.Release
	for p, n := range cat.Newest {
		if (product == "" || p == product) && (newest == nil || n.PublishedAt.After(newest.PublishedAt)) {
			newest = n
		}
	}
	if newest != nil {
		m := manifestOf(newest, newest.PublishedAt)
		a.Manifest, a.TotalChunks = &m, m.TotalChunks
	}
	for _, d := range deps {
		if rel := cat.ByID[d.ReleaseID]; product != "" && (rel == nil || rel.Product != product) {
			continue
		}
		a.DeviceStatus[d.Device] = deviceStatus{ChunkReceived: d.ChunksReceived, Verified: d.Verified, BootStatus: d.BootStatus,
			Rollback: d.State == fleet.StateReverted, Error: d.Reason, LastUpdate: d.UpdatedAt.UTC().Format(stampLayout), Proven: d.Proven}
	}
	writeJSON(w, http.StatusOK, a)
}

type rollbackAnswer struct {
	Success bool   `json:"success"`
	Message string `json:"message"`
	Device  string `json:"device_id"`
	Reason  string `json:"reason"`
}

func (s *Server) orderRollback(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r, maxOrderBody)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	var o struct {
		Device string `json:"device_id"`
		Reason string `json:"reason"`
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := json.Unmarshal(body, &o); err != nil {
			s.fail(w, r, badJSON(err))
			return
		}
	}
	if o.Device == "" {
		o.Device = fleet.AllDevices
	}
	o.Reason = fleet.CleanText(o.Reason, fleet.MaxText)
	if o.Reason == "" {
		o.Reason = fleet.DefaultReason
	}
	n, err := s.c.Orders.OrderRollback(r.Context(), o.Device, o.Reason, s.c.Now())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	writeJSON(w, http.StatusOK, rollbackAnswer{Success: true, Message: "Rollback ordered for " + counted(n), Device: o.Device, Reason: o.Reason})
}

func counted(devices int) string {
	if devices == 1 {
		return "1 device"
	}
	return fmt.Sprintf("%d devices", devices)
}

type logLine struct {
	Time    string `json:"timestamp"`
	Event   string `json:"event"`
	Device  string `json:"device_id,omitempty"`
	Version string `json:"version,omitempty"`
	Detail  string `json:"details,omitempty"`
	Proven  bool   `json:"proven"`
}

func (s *Server) logs(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	limit := defaultLogs
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			s.fail(w, r, fleet.Errorf(fleet.CodeInvalid, "limit is not a number from 1 to %d", maxLogs))
			return
		}
		limit = min(n, maxLogs)
	}
	events, total, err := s.c.Events.Events(r.Context(), q.Get("device_id"), limit)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	lines := make([]logLine, 0, len(events))
	for _, e := range events {
		lines = append(lines, logLine{e.Time.UTC().Format(stampLayout), e.Name, e.Device, e.Version, e.Detail, e.Proven})
	}
	writeJSON(w, http.StatusOK, struct {
		Total int       `json:"total"`
		Logs  []logLine `json:"logs"`
	}{total, lines})
}
