package adminapi_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/adminapi"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
)

const psk = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

var t0 = time.Date(2026, 11, 23, 18, 54, 47, 0, time.UTC)

// world is the API over a real store; images are only counted.
type world struct {
	t     *testing.T
	store *sqlite.Store
	mux   *http.ServeMux
	log   bytes.Buffer
	token string
}

// intake takes every image that arrives whole.
type intake struct{ store *sqlite.Store }

func (i intake) PublishImage(ctx context.Context, product, version string, size int, digest *fleet.Digest, r io.Reader, say fleet.Publication) (fleet.Release, bool, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return fleet.Release{}, false, err
	}
	d := fleet.Digest(sha256.Sum256(b))
	if digest != nil && *digest != d {
		return fleet.Release{}, false, fleet.Errorf(fleet.CodeInvalid, "another digest")
	}
	return i.store.Publish(ctx, say.Of(fleet.Release{Product: product, Version: version, ChunkSize: size, Image: fleet.Image{Digest: d, Size: int64(len(b))}}), t0)
}

// PublishRelease is for signed_test.go, which has the real one.
func (i intake) PublishRelease(context.Context, io.Reader, int64, fleet.Publication) (fleet.Release, bool, error) {
	return fleet.Release{}, false, fleet.Errorf(fleet.CodeInvalid, "no release file is taken here")
}

func newWorld(t *testing.T, change func(*adminapi.Config)) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	if w.store, err = sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "runnel.db"), Secret: [32]byte{9}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if w.token, err = fleet.NewToken(bytes.NewReader(bytes.Repeat([]byte{7}, 32))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.AddToken(t.Context(), "test", w.token, t0); err != nil {
		t.Fatal(err)
	}
	c := adminapi.Config{Releases: w.store, Drafts: w.store, Signed: w.store, KeyLists: w.store, Policies: w.store, V1Policies: w.store, Rollouts: w.store, RolloutPolicies: w.store, Groups: w.store, Labels: w.store, Devices: w.store, Keyring: w.store, EnrolTokens: w.store, Derivations: w.store, StreamKeys: w.store, Orders: w.store, Deployments: w.store, Events: w.store, Tokens: w.store,
		Publisher: intake{w.store}, Now: func() time.Time { return t0 }, Log: slog.New(slog.NewTextHandler(&w.log, nil)), MaxImage: 1000}
	if change != nil {
		change(&c)
	}
	w.mux = http.NewServeMux()
	adminapi.Register(w.mux, c)
	return w
}

func (w *world) do(method, path, body string, headers ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/api/v1"+path, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	r.Header.Set("Authorization", "Bearer "+w.token)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, r)
	return rec
}

type problem struct {
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Code   string `json:"code"`
	Hint   string `json:"hint"`
}

// fails wants a problem with that status and code, and that it shows no secret.
func (w *world) fails(rec *httptest.ResponseRecorder, status int, code string) problem {
	w.t.Helper()
	var p problem
	if err := json.Unmarshal(rec.Body.Bytes(), &p); err != nil || rec.Code != status || p.Status != status || p.Code != code || p.Detail == "" ||
		rec.Header().Get("Content-Type") != "application/problem+json" {
		w.t.Errorf("%d %s %v, want %d %s", rec.Code, rec.Body, rec.Header(), status, code)
	}
	for _, secret := range []string{psk[:16], w.token[:12]} {
		if strings.Contains(rec.Body.String(), secret) {
			w.t.Errorf("the answer has a secret: %s", rec.Body)
		}
	}
	return p
}

func (w *world) ok(rec *httptest.ResponseRecorder, status int, part string) {
	w.t.Helper()
	if rec.Code != status || !strings.Contains(rec.Body.String(), part) {
		w.t.Errorf("%d %s, want %d with %s", rec.Code, rec.Body, status, part)
	}
}

func TestToken(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct {
		auth string
		good bool
	}{{"Bearer " + w.token, true}, {"bearer " + w.token, true}, {"", false}, {"Bearer", false}, {"Bearer ", false}, {"Basic " + w.token, false}, {w.token, false},
		{"Bearer " + w.token + "x", false}, {"Bearer " + w.token[:len(w.token)-1], false}, {"Bearer rnl_" + strings.Repeat("A", 43), false}} {
		rec := w.do("GET", "/devices", "", "Authorization", c.auth)
		if c.good {
			w.ok(rec, 200, `{"devices":[]}`)
			continue
		}
		w.fails(rec, 401, "unauthenticated")
		if rec.Header().Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%q: %v", c.auth, rec.Header())
		}
	}
	if err := w.store.RevokeToken(t.Context(), 1, t0); err != nil {
		t.Fatal(err)
	}
	w.fails(w.do("GET", "/devices", ""), 401, "unauthenticated")
	w.ok(w.do("GET", "/health", "", "Authorization", ""), 200, `"ok"`)
}

// What is wrong with a request has a code, and no answer repeats a key.
func TestProblems(t *testing.T) {
	w := newWorld(t, nil)
	add := func(id, product, key string) *httptest.ResponseRecorder {
		b, _ := json.Marshal(map[string]string{"id": id, "product": product, "psk": key})
		return w.do("POST", "/devices", string(b))
	}
	w.ok(add("dev-1", "", psk), 201, `"assurance":"own"`)
	w.fails(add("dev-1", "", psk), 409, "conflict")
	w.fails(add("all", "", psk), 400, "invalid")
	w.fails(add("a b", "", psk), 400, "invalid")
	w.fails(add("dev-2", "a/b/c", psk), 400, "invalid")
	w.fails(add("dev-2", "", psk[:63]), 400, "invalid")
	w.fails(add("dev-2", "", psk[:63]+"g"), 400, "invalid")
	w.fails(add("dev-2", "", strings.Repeat("0", 64)), 400, "invalid")
	// Refused by the schema: 422.
	w.fails(add("dev-2", "", psk+psk), 422, "invalid")
	w.fails(add(strings.Repeat("x", 65), "", psk), 422, "invalid")
	w.fails(w.do("POST", "/devices", `{"id":["`+psk+`"]}`), 422, "invalid")
	w.fails(w.do("POST", "/devices", `{"id":"x","psk":"`+psk+`","more":1}`), 422, "invalid")
	w.fails(w.do("POST", "/devices", psk), 400, "invalid")
	w.fails(w.do("POST", "/devices", `{"id":"`+strings.Repeat("x", 20_000)+`"}`), 413, "too_large")
	w.fails(w.do("POST", "/product-keys", `{"product":"p","psk":"`+psk[:60]+`"}`), 400, "invalid")
	w.ok(w.do("POST", "/product-keys", `{"product":"p","psk":"`+psk+`"}`), 200, `"warning"`)
	w.ok(add("dev-3", "p", ""), 201, `"assurance":"shared","warning":"uses its product's key`)
	for _, path := range []string{"/devices/nobody", "/devices/nobody/timeline", "/releases/9"} {
		w.fails(w.do("GET", path, ""), 404, "not_found")
	}
	for _, path := range []string{"/devices/nobody/reset-nonce", "/devices/nobody/retry", "/releases/9/withdraw"} {
		w.fails(w.do("POST", path, ""), 404, "not_found")
	}
	w.fails(w.do("POST", "/devices/nobody/rollback", "{}"), 404, "not_found")
	w.fails(w.do("GET", "/logs?limit=0", ""), 422, "invalid")
	w.fails(w.do("GET", "/logs?limit=1001", ""), 422, "invalid")
	w.fails(w.do("GET", "/releases/x", ""), 422, "invalid")
	w.ok(w.do("GET", "/logs?device=dev-1", ""), 200, `"device_added"`)
	if s := w.do("GET", "/devices", "").Body.String() + w.do("GET", "/logs", "").Body.String() + w.log.String(); strings.Contains(s, psk[:16]) || strings.Contains(s, w.token) {
		t.Errorf("a secret is shown: %s", s)
	}
}

func TestPublish(t *testing.T) {
	w := newWorld(t, nil)
	push := func(query, image string) *httptest.ResponseRecorder {
		return w.do("POST", "/releases?"+query, image, "Content-Type", "application/octet-stream")
	}
	whole := strings.Repeat("x", 1000) // as many as are allowed
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(whole)))
	w.ok(push("product=p&version=1&sha256="+sum, whole), 201, `"created":true`)
	w.ok(push("product=p&version=1&sha256="+sum, whole), 200, `"created":false`)
	w.ok(push("product=p&version=2&chunk_size=1000", whole), 201, `"warning":"chunk size 1000 neither divides`)
	w.fails(push("product=p&version=1", "y"), 409, "conflict")
	w.fails(push("product=p&version=3", whole+"x"), 413, "too_large")
	w.fails(push("product=p&version=3&sha256=12", whole), 400, "invalid")
	w.fails(push("product=p&version=3&sha256="+strings.Repeat("0", 64), whole), 400, "invalid")
	w.fails(push("product=p&version=3&chunk_size=7", whole), 400, "invalid")
	w.fails(push("product=a/b/c&version=3", whole), 400, "invalid")
	w.fails(push("product=p&version=+3", whole), 400, "invalid")
	w.fails(push("version=3", whole), 422, "invalid")
	w.fails(push("product=p", whole), 422, "invalid")
	w.fails(push("product=p&version=3", ""), 400, "invalid")
	// An upload that breaks off.
	r := httptest.NewRequest("POST", "/api/v1/releases?product=p&version=3", io.MultiReader(strings.NewReader("half"), broken{}))
	r.Header.Set("Authorization", "Bearer "+w.token)
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, r)
	if p := w.fails(rec, 400, "invalid"); p.Detail != "the upload broke off" {
		t.Errorf("%+v", p)
	}
	if list, err := w.store.ListReleases(t.Context(), ""); err != nil || len(list) != 2 {
		t.Errorf("%+v, %v", list, err)
	}
	w.ok(w.do("POST", "/releases/1/withdraw", ""), 200, `"state":"withdrawn"`)
	w.ok(w.do("GET", "/releases?product=p", ""), 200, `"version":"2"`)
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// failing is a store whose list of devices can't be read.
type failing struct {
	fleet.Devices
	err error
}

func (f failing) ListDevices(context.Context) ([]fleet.Device, error) { return nil, f.err }

// What is not the caller's fault: when to come back, and nothing of the inside.
func TestServersFaults(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
		later  bool
	}{
		{fleet.Errorf(fleet.CodeBusy, "too many writes are waiting"), 503, "busy", true},
		{fleet.Errorf(fleet.CodeNoSpace, "the disk is full"), 507, "no_space", false},
		{&fleet.Error{Code: fleet.CodeInternal, Message: "the database failed", Err: fmt.Errorf("page 7")}, 500, "internal", false},
		{fmt.Errorf("page 7"), 500, "internal", false},
		{fleet.Errorf("odd", "a code that is not known"), 500, "internal", false},
	} {
		w := newWorld(t, func(k *adminapi.Config) { k.Devices = failing{k.Devices, c.err} })
		rec := w.do("GET", "/devices", "")
		p := w.fails(rec, c.status, c.code)
		if after, err := strconv.Atoi(rec.Header().Get("Retry-After")); (err == nil && after >= 1) != c.later {
			t.Errorf("%v: Retry-After %q", c.err, rec.Header().Get("Retry-After"))
		}
		if internal := c.status == 500; internal != strings.Contains(w.log.String(), "operator's call failed") || internal && (p.Detail != "internal error" || p.Hint == "") {
			t.Errorf("%v: %+v; log: %s", c.err, p, w.log.String())
		}
	}
}
