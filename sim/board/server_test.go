package board

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/core/device"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// fakeServer answers the v1 wire from memory, and can be told to misbehave.
type fakeServer struct {
	key      []byte
	image    []byte // on offer; nil: nothing
	version  string
	stamp    int64
	chunk    int
	rollback bool
	down     bool
	busy     int // answers 503 so often
	reports  []map[string]any
	fetched  int // bytes of chunks served
	chunks   int
	mangle   func(n int, answer map[string]any) // of a chunk
	lastN    string
	clock    *VirtualClock // moves by a round trip with each request
}

func (s *fakeServer) Do(_ context.Context, r device.Request) (Answer, error) {
	s.clock.Now += 10 // ms
	if s.down {
		return nil, errors.New("down")
	}
	if s.busy > 0 {
		s.busy--
		return &textAnswer{status: 503, retry: busySeconds * time.Second, r: strings.NewReader(`{"error":"busy"}`)}, nil
	}
	u, err := url.Parse(string(r.Target))
	if err != nil {
		return nil, err
	}
	m := hmac.New(sha256.New, s.key)
	m.Write(r.Target)
	m.Write(r.Nonce)
	m.Write(r.Timestamp)
	if hex.EncodeToString(m.Sum(nil)) != string(r.MAC) {
		return text(401, `{"error":"mac"}`), nil
	}
	if len(r.Nonce) < len(s.lastN) || len(r.Nonce) == len(s.lastN) && string(r.Nonce) <= s.lastN {
		return text(401, `{"error":"nonce"}`), nil
	}
	s.lastN = string(r.Nonce)
	switch u.Path {
	case v1.RollbackPath:
		rb := s.rollback
		s.rollback = false
		return text(200, fmt.Sprintf(`{"rollback_required":%v}`, rb)), nil
	case v1.ManifestPath:
		if s.image == nil {
			return text(200, `{}`), nil
		}
		sum := sha256.Sum256(s.image)
		return text(200, fmt.Sprintf(`{"fota":{"manifest":{"version":%q,"size":%d,"hash":"%x","chunk_size":%d,"uploaded_at":%d}}}`,
			s.version, len(s.image), sum, s.chunk, s.stamp)), nil
	case v1.ChunkPath:
		n, err := strconv.Atoi(u.Query().Get("chunk_number"))
		if err != nil || n*s.chunk >= len(s.image) {
			return text(404, `{"error":"Chunk not found"}`), nil
		}
		data := s.image[n*s.chunk : min((n+1)*s.chunk, len(s.image))]
		s.fetched += len(data)
		s.chunks++
		a := s.answer(n, s.image)
		if s.mangle != nil {
			s.mangle(n, a)
		}
		b, err := json.Marshal(a)
		return text(200, string(b)), err
	case v1.StatusPath:
		var body struct {
			FotaStatus map[string]any `json:"fota_status"`
		}
		if err := json.Unmarshal(r.Body, &body); err != nil {
			return nil, err
		}
		s.reports = append(s.reports, body.FotaStatus)
		return text(200, `{"status":"success"}`), nil
	}
	return text(404, `{}`), nil
}

// answer is a right answer for chunk n of an image.
func (s *fakeServer) answer(n int, image []byte) map[string]any {
	data := image[n*s.chunk : min((n+1)*s.chunk, len(image))]
	m := hmac.New(sha256.New, s.key)
	m.Write(data)
	mac := hex.EncodeToString(m.Sum(nil))
	return map[string]any{"chunk_number": n, "data": base64.StdEncoding.EncodeToString(data), "mac": mac, "hmac": mac, "size": len(data)}
}

// said is whether any report has the member with the value.
func (s *fakeServer) said(member string, value any) bool {
	for _, r := range s.reports {
		if r[member] == value {
			return true
		}
	}
	return false
}

// busySeconds is what a busy server asks for.
const busySeconds = 77

type textAnswer struct {
	status int
	retry  time.Duration
	r      *strings.Reader
}

func text(status int, s string) Answer { return &textAnswer{status: status, r: strings.NewReader(s)} }

func (a *textAnswer) Head() device.Head {
	return device.Head{Status: uint16(a.status), RetryAfter: uint32(a.retry.Seconds())}
}
func (a *textAnswer) Close() error { return nil }
func (a *textAnswer) Read(p []byte) (int, bool, error) {
	n, err := a.r.Read(p)
	return n, errors.Is(err, io.EOF), nil
}
