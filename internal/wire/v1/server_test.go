package v1_test

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/opentest"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

var testKey = fleet.Key{1, 2, 3, 4, 5}

// memory is a blob store and a publisher over a real store.
type memory struct {
	store *opentest.Store
	mu    sync.Mutex
	blobs map[fleet.Digest][]byte
	opens int
	now   func() time.Time
}

func (m *memory) OpenBlob(_ context.Context, d fleet.Digest) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.opens++
	return io.NopCloser(bytes.NewReader(m.blobs[d])), nil
}

func (m *memory) PublishImage(ctx context.Context, product, version string, size int, _ *fleet.Digest, r io.Reader) (fleet.Release, bool, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return fleet.Release{}, false, err
	}
	d := fleet.Digest(sha256.Sum256(b))
	m.mu.Lock()
	m.blobs[d] = b
	m.mu.Unlock()
	return m.store.Publish(ctx, fleet.Release{Product: product, Version: version, ChunkSize: size,
		Image: fleet.Image{Digest: d, Size: int64(len(b))}}, m.now())
}

func TestMain(m *testing.M) { os.Exit(opentest.Main(m)) }

// world is a server over a real store, with a clock that only the test moves.
type world struct {
	t     testing.TB
	path  string
	store *opentest.Store
	blobs *memory
	wire  *v1.Server
	mux   *http.ServeMux
	log   bytes.Buffer
	token string
	mu    sync.Mutex
	clock time.Time
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.clock
}

func (w *world) advance(d time.Duration) {
	w.mu.Lock()
	w.clock = w.clock.Add(d)
	w.mu.Unlock()
}

func newWorld(t testing.TB, change func(*v1.Config)) *world {
	w := &world{t: t, path: filepath.Join(t.TempDir(), "runnel.db"), clock: time.Date(2026, 11, 23, 18, 54, 47, 0, time.UTC)}
	w.blobs = &memory{blobs: map[fleet.Digest][]byte{}, now: w.now}
	w.open(change)
	var err error
	if w.token, err = fleet.NewToken(bytes.NewReader(bytes.Repeat([]byte{7}, 32))); err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.AddToken(t.Context(), "test", w.token, w.now()); err != nil {
		t.Fatal(err)
	}
	w.add("dev-1", testKey)
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	if w.store == nil {
		return
	}
	if err := w.store.Close(); err != nil {
		w.t.Error(err)
	}
	w.store = nil
}

// open starts a server on the store's file.
func (w *world) open(change func(*v1.Config)) {
	store := opentest.Open(w.t, w.path, [32]byte{9})
	w.store, w.blobs.store = store, store
	c := v1.Config{Replicas: store.Replicas, Devices: store, Orders: store, Deployments: store, Catalogue: store, Events: store, Tokens: store,
		Blobs: w.blobs, Publisher: w.blobs, Now: w.now, Window: v1.DefaultWindow,
		Log: slog.New(slog.NewTextHandler(&w.log, nil))}
	if change != nil {
		change(&c)
	}
	w.wire = v1.New(c)
	w.mux = http.NewServeMux()
	w.wire.Register(w.mux)
}

func (w *world) add(id string, key fleet.Key) {
	w.t.Helper()
	if err := w.store.AddDevice(w.t.Context(), fleet.Device{ID: id}, &key, w.now()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) publish(version string, image []byte, chunkSize int) fleet.Release {
	w.t.Helper()
	r, _, err := w.blobs.PublishImage(w.t.Context(), fleet.DefaultProduct, version, chunkSize, nil, bytes.NewReader(image))
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func mac(key fleet.Key, parts ...string) string {
	m := hmac.New(sha256.New, key[:])
	for _, p := range parts {
		io.WriteString(m, p)
	}
	return hex.EncodeToString(m.Sum(nil))
}

// do sends a request with pairs of headers.
func (w *world) do(method, target, body string, headers ...string) *httptest.ResponseRecorder {
	w.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Host, r.RemoteAddr = "127.0.0.1:8080", "127.0.0.1:50000"
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, r)
	return rec
}

func signed(id string, key fleet.Key, target, nonce, ts string) []string {
	return []string{"Device-ID", id, "X-Nonce", nonce, "X-Timestamp", ts, "X-MAC", mac(key, target, nonce, ts)}
}

func (w *world) unix() string { return fmt.Sprint(w.now().Unix()) }

func (w *world) want(rec *httptest.ResponseRecorder, status int, part string) {
	w.t.Helper()
	if rec.Code != status || !strings.Contains(rec.Body.String(), part) {
		w.t.Errorf("answer is %d %s, want %d with %s", rec.Code, rec.Body, status, part)
	}
}

func testImage(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * 7)
	}
	return b
}

func TestManifestAndChunks(t *testing.T) {
	w := newWorld(t, nil)
	get := func(n int, target string) *httptest.ResponseRecorder {
		return w.do("GET", target, "", signed("dev-1", testKey, target, fmt.Sprint(n), w.unix())...)
	}
	if rec := get(1, v1.PathManifest); rec.Body.String() != "{}" {
		t.Errorf("nothing is published, the answer is %s", rec.Body)
	}
	image := testImage(2500)
	w.publish("1.0", image, 1024)
	want := fmt.Sprintf(`{"fota":{"manifest":{"version":"1.0","size":2500,"hash":"%x","chunk_size":1024,"uploaded_at":"2026-11-23T18:54:47Z","total_chunks":3}}}`, sha256.Sum256(image))
	if rec := get(2, v1.PathManifest); rec.Body.String() != want {
		t.Errorf("manifest is\n%s, want\n%s", rec.Body, want)
	}
	for i, c := range []struct {
		query           string
		number, at, end int
	}{
		{"chunk_number=0", 0, 0, 1024}, {"chunk=1", 1, 1024, 2048}, {"chunk_number=2", 2, 2048, 2500},
		{"offset=1024&size=1024", 1, 1024, 2048}, {"offset=100&size=50", 0, 100, 150}, {"offset=2048", 2, 2048, 2500},
	} {
		part := image[c.at:c.end]
		m := hmac.New(sha256.New, testKey[:])
		m.Write(part)
		sum := hex.EncodeToString(m.Sum(nil))
		want := fmt.Sprintf(`{"chunk_number":%d,"data":"%s","mac":"%s","hmac":"%s","size":%d}`, c.number, base64.StdEncoding.EncodeToString(part), sum, sum, len(part))
		if rec := get(10+i, v1.PathChunk+"?"+c.query); rec.Body.String() != want {
			t.Errorf("%s: %d %s, want %s", c.query, rec.Code, rec.Body, want)
		}
	}
	for i, c := range []struct {
		query  string
		status int
	}{
		{"chunk_number=3", 404}, {"chunk_number=999999999999999", 404}, {"offset=2500&size=1", 404},
		{"chunk_number=-1", 400}, {"chunk_number=01", 400}, {"", 400}, {"offset=0&size=99999", 400}, {"chunk_number=1&chunk_number=2", 400},
	} {
		if rec := get(50+i, v1.PathChunk+"?"+c.query); rec.Code != c.status {
			t.Errorf("%q: %d %s, want %d", c.query, rec.Code, rec.Body, c.status)
		}
	}
	if w.blobs.opens != 1 {
		t.Errorf("the image was read %d times, want once", w.blobs.opens)
	}
}

// A release that comes up in mid-download does not mix with the one that the device polled.
func TestOfferIsPinned(t *testing.T) {
	w := newWorld(t, nil)
	a := bytes.Repeat([]byte{0xAA}, 2048)
	w.publish("a", a, 1024)
	n := 0
	get := func(target string) string {
		n++
		return w.do("GET", target, "", signed("dev-1", testKey, target, fmt.Sprint(n), w.unix())...).Body.String()
	}
	get(v1.PathManifest)
	w.publish("b", bytes.Repeat([]byte{0xBB}, 2048), 1024)
	if body := get(v1.PathChunk + "?chunk_number=1"); !strings.Contains(body, base64.StdEncoding.EncodeToString(a[:1024])) {
		t.Errorf("chunk is not of the release that was polled: %.80s", body)
	}
	if body := get(v1.PathManifest); !strings.Contains(body, `"version":"b"`) {
		t.Errorf("manifest is %s", body)
	}
	if body := get(v1.PathChunk + "?chunk_number=1"); strings.Contains(body, "qqqq") {
		t.Errorf("chunk is still of a: %.80s", body)
	}
}

func TestAuthentication(t *testing.T) {
	const target = v1.PathChunk + "?chunk_number=1"
	type step struct {
		name    string
		target  string
		headers func(w *world) []string
		status  int
	}
	sign := func(key fleet.Key, id, over, nonce, ts string) func(*world) []string {
		return func(w *world) []string {
			if ts == "" {
				return signed(id, key, over, nonce, w.unix())
			}
			return signed(id, key, over, nonce, ts)
		}
	}
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"path with query, then the bare path", []step{
			{"query", target, sign(testKey, "dev-1", target, "5", ""), 200},
			{"bare", target, sign(testKey, "dev-1", v1.PathChunk, "6", ""), 200}}},
		{"replay", []step{
			{"first", target, sign(testKey, "dev-1", target, "5", ""), 200},
			{"again", target, sign(testKey, "dev-1", target, "5", ""), 401},
			{"lower", target, sign(testKey, "dev-1", target, "4", ""), 401},
			{"higher", target, sign(testKey, "dev-1", target, "6", ""), 200}}},
		{"wrong key", []step{{"", target, sign(fleet.Key{9}, "dev-1", target, "5", ""), 401}}},
		{"unknown device, and nobody's key", []step{{"", target, sign(fleet.Key{}, "dev-9", target, "5", ""), 401}}},
		{"other path", []step{{"", target, sign(testKey, "dev-1", v1.PathManifest, "5", ""), 401}}},
		{"no headers", []step{{"", target, func(*world) []string { return nil }, 401}}},
		{"name without a MAC", []step{{"", target, func(*world) []string { return []string{"Device-ID", "dev-1"} }, 401}}},
		{"two names", []step{{"", target, func(w *world) []string {
			return append(signed("dev-1", testKey, target, "5", w.unix()), "Device-ID", "dev-2")
		}, 401}}},
		{"nonce not canonical", []step{
			{"zero", target, sign(testKey, "dev-1", target, "0", ""), 401},
			{"leading zero", target, sign(testKey, "dev-1", target, "05", ""), 401},
			{"sign", target, sign(testKey, "dev-1", target, "+5", ""), 401},
			{"empty", target, sign(testKey, "dev-1", target, "", ""), 401},
			{"63 bits", target, sign(testKey, "dev-1", target, "9223372036854775808", ""), 401},
			{"long", target, sign(testKey, "dev-1", target, "10000000000000000000", ""), 401}}},
		{"window", []step{
			{"old", target, sign(testKey, "dev-1", target, "5", "1700000000"), 401},
			{"now", target, sign(testKey, "dev-1", target, "5", ""), 200}}},
		{"eleven digits", []step{{"", target, sign(testKey, "dev-1", target, "5", "17000000000"), 401}}},
		{"clockless until a clock was seen", []step{
			{"uptime", target, sign(testKey, "dev-1", target, "5", "77"), 200},
			{"clock", target, sign(testKey, "dev-1", target, "6", ""), 200},
			{"uptime again", target, sign(testKey, "dev-1", target, "7", "78"), 401}}},
		{"jump", []step{
			{"first is free", target, sign(testKey, "dev-1", target, "1000000000000000", ""), 200},
			{"too far", target, sign(testKey, "dev-1", target, "1000004294967297", ""), 401},
			{"just", target, sign(testKey, "dev-1", target, "1000004294967296", ""), 200}}},
		{"re-split of a recorded request", []step{
			{"recorded", target, sign(testKey, "dev-1", target, "12", ""), 200},
			{"a digit moved to the nonce", target, func(w *world) []string {
				ts := w.unix()
				h := signed("dev-1", testKey, target, "12", ts)
				h[3], h[5] = "12"+ts[:1], ts[1:]
				return h
			}, 401},
			{"a digit moved to the query", target + "1", func(w *world) []string {
				h := signed("dev-1", testKey, target, "12", w.unix())
				h[3] = "2"
				return h
			}, 401}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, nil)
			w.publish("1", testImage(4096), 1024)
			for _, s := range c.steps {
				if rec := w.do("GET", s.target, "", s.headers(w)...); rec.Code != s.status {
					t.Errorf("%s: %d %s, want %d", s.name, rec.Code, rec.Body, s.status)
				}
			}
			if log := w.log.String(); strings.Contains(log, hex.EncodeToString(testKey[:8])) {
				t.Errorf("the log has a key: %s", log)
			}
		})
	}
}

// An unknown device and a wrong MAC can't be told apart.
func TestNoOracle(t *testing.T) {
	w := newWorld(t, nil)
	a := w.do("GET", v1.PathManifest, "", signed("dev-1", fleet.Key{9}, v1.PathManifest, "1", w.unix())...)
	b := w.do("GET", v1.PathManifest, "", signed("dev-9", fleet.Key{9}, v1.PathManifest, "1", w.unix())...)
	if a.Code != 401 || a.Code != b.Code || a.Body.String() != b.Body.String() {
		t.Errorf("%d %s and %d %s differ", a.Code, a.Body, b.Code, b.Body)
	}
}

func seal(key fleet.Key, nonce, ts, report string) string {
	payload := base64.StdEncoding.EncodeToString([]byte(report))
	b, _ := json.Marshal(map[string]any{"nonce": json.Number(nonce), "timestamp": ts, "encrypted": true, "payload": payload, "mac": mac(key, nonce, ts, "1", payload)})
	return string(b)
}

func TestReports(t *testing.T) {
	const report = `{"fota_status":{"chunk_received":2,"total_chunks":4}}`
	w := newWorld(t, nil)
	w.publish("1", testImage(4096), 1024)
	post := func(body string, headers ...string) *httptest.ResponseRecorder {
		return w.do("POST", v1.PathStatus, body, headers...)
	}
	w.want(post(report), 401, "unauthenticated")
	w.want(post(report, signed("dev-1", testKey, v1.PathStatus, "5", w.unix())...), 200, `{"status":"success"}`)
	w.want(post(report, signed("dev-1", testKey, v1.PathStatus, "5", w.unix())...), 401, "replay")
	w.want(post(seal(testKey, "6", w.unix(), `{"fota_status":{"chunk_received":3}}`), "Device-ID", "dev-1"), 200, "success")
	w.want(post(seal(testKey, "6", w.unix(), report), "Device-ID", "dev-1"), 401, "replay")
	w.want(post(seal(fleet.Key{9}, "7", w.unix(), report), "Device-ID", "dev-1"), 401, "unauthenticated")
	forged := strings.Replace(seal(testKey, "7", w.unix(), report), `"encrypted":true`, `"encrypted":false`, 1)
	w.want(post(forged, "Device-ID", "dev-1"), 401, "unauthenticated")
	w.want(post(`{`, signed("dev-1", testKey, v1.PathStatus, "8", w.unix())...), 400, "invalid")
	w.want(post(strings.Repeat(" ", 20000), signed("dev-1", testKey, v1.PathStatus, "9", w.unix())...), 413, "too_large")
	dep, err := w.store.Deployment(t.Context(), "dev-1")
	if err != nil || dep.ChunksReceived != 3 || !dep.Proven {
		t.Errorf("deployment is %+v, %v", dep, err)
	}
	// The nonce of a report is in the store without any flush.
	want := uint64(6)
	if opentest.Postgres() {
		want = 8 // taken before the body was found wrong
	}
	if d, err := w.store.Device(t.Context(), "dev-1"); err != nil || d.Nonce != want {
		t.Errorf("stored nonce is %d, %v, want %d", d.Nonce, err, want)
	}
}

func TestSilentDevice(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.SilentDevice = "old" })
	w.want(w.do("GET", v1.PathManifest, ""), 401, "unauthenticated") // not added yet
	w.add("old", fleet.Key{3})
	w.publish("1", testImage(4096), 1024)
	w.want(w.do("GET", v1.PathManifest, ""), 200, `"version":"1"`)
	w.want(w.do("GET", v1.PathManifest, "", "Device-ID", "old"), 200, `"version":"1"`)
	w.want(w.do("GET", v1.PathManifest, "", "Device-ID", "dev-1"), 401, "unauthenticated")
	w.want(w.do("GET", v1.PathManifest, "", "Device-ID", "old", "X-MAC", strings.Repeat("0", 64)), 401, "unauthenticated")
	w.want(w.do("GET", v1.PathChunk+"?chunk=0", ""), 200, `"mac":"`)
	w.want(w.do("POST", v1.PathStatus, `{"fota_status":{"boot_status":"success","new_version":"1"}}`), 200, "success")
	w.want(w.do("GET", v1.PathManifest, ""), 200, `"version":"1"`) // the report decides nothing
	dep, err := w.store.Deployment(t.Context(), "old")
	if err != nil || dep.Proven {
		t.Errorf("deployment is %+v, %v", dep, err)
	}
}

func TestRollbackFlag(t *testing.T) {
	w := newWorld(t, nil)
	n := 0
	ask := func() string {
		n++
		return w.do("GET", v1.PathRollback, "", signed("dev-1", testKey, v1.PathRollback, fmt.Sprint(n), w.unix())...).Body.String()
	}
	const no = `{"rollback_required":false}`
	if got := ask(); got != no {
		t.Errorf("unasked: %s", got)
	}
	rec := w.do("POST", v1.PathOrderRollback, `{"device_id":"dev-1","reason":"too hot"}`, "Authorization", "Bearer "+w.token)
	w.want(rec, 200, `"success":true`)
	const yes = `{"rollback_required":true,"reason":"too hot"}`
	for _, c := range []struct {
		after time.Duration
		want  string
	}{{0, yes}, {time.Minute, no}, {9 * time.Minute, yes}, {time.Second, no}} {
		w.advance(c.after)
		if got := ask(); got != c.want {
			t.Errorf("after %v: %s, want %s", c.after, got, c.want)
		}
	}
}

// A restart keeps nonces that were flushed, and a reset forgets them though they are in memory.
func TestRestartAndReset(t *testing.T) {
	w := newWorld(t, nil)
	get := func(n int) int {
		return w.do("GET", v1.PathManifest, "", signed("dev-1", testKey, v1.PathManifest, fmt.Sprint(n), w.unix())...).Code
	}
	if got := get(50); got != 200 {
		t.Fatalf("status %d", got)
	}
	if err := w.wire.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.close()
	w.open(nil)
	if got := get(50); got != 401 {
		t.Errorf("replay after a restart: %d", got)
	}
	if got := get(60); got != 200 {
		t.Errorf("the next nonce: %d", got)
	}
	if err := w.wire.Orders().ResetNonce(t.Context(), "dev-1", w.now()); err != nil {
		t.Fatal(err)
	}
	if err := w.wire.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := get(1); got != 200 {
		t.Errorf("after a reset: %d", got)
	}
}

func TestOperator(t *testing.T) {
	image := testImage(3000)
	sum := sha256.Sum256(image)
	upload := func(change func(map[string]any)) string {
		m := map[string]any{"version": "7", "size": len(image), "hash": hex.EncodeToString(sum[:]), "firmware_data": base64.StdEncoding.EncodeToString(image)}
		if change != nil {
			change(m)
		}
		b, _ := json.Marshal(m)
		return string(b)
	}
	w := newWorld(t, nil)
	auth := []string{"Authorization", "Bearer " + w.token}
	for _, c := range []struct {
		name, body string
		status     int
		part       string
	}{
		{"no version", upload(func(m map[string]any) { delete(m, "version") }), 400, `"error":"Missing required fields"`},
		{"no data", upload(func(m map[string]any) { delete(m, "firmware_data") }), 400, `"error":"Missing required fields"`},
		{"bad base64", upload(func(m map[string]any) { m["firmware_data"] = "%%" }), 400, `"error":"Invalid base64: `},
		{"bad hash", upload(func(m map[string]any) { m["hash"] = strings.Repeat("0", 64) }), 400, `"error":"Hash mismatch"`},
		{"good", upload(nil), 200, `"total_chunks":3}`},
	} {
		rec := w.do("POST", v1.PathUpload, c.body, auth...)
		if rec.Code != c.status || !strings.Contains(rec.Body.String(), c.part) {
			t.Errorf("%s: %d %s", c.name, rec.Code, rec.Body)
		}
	}
	w.want(w.do("GET", v1.PathFleetStatus, "", auth...), 200, `"manifest":{"version":"7"`)
	logs := w.do("GET", v1.PathLogs+"?limit=10", "", auth...)
	w.want(logs, 200, `"event":"firmware_uploaded"`)
	for _, p := range []string{v1.PathFleetStatus, v1.PathLogs} {
		w.want(w.do("GET", p, ""), 401, "unauthenticated")
		w.want(w.do("GET", p, "", "Authorization", "Bearer rnl_wrong"), 401, "unauthenticated")
		w.want(w.do("DELETE", p, "", auth...), 405, "method_not_allowed")
	}
	if s := w.log.String() + logs.Body.String(); strings.Contains(s, w.token) || strings.Contains(s, hex.EncodeToString(testKey[:])) {
		t.Error("a secret is in the log")
	}
}

func TestOpenOperator(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.OpenOperator = true })
	for _, c := range []struct {
		name         string
		remote, host string
		header       string
		status       int
	}{
		{"loopback", "127.0.0.1:5", "127.0.0.1:80", "", 200},
		{"name", "127.0.0.1:5", "localhost:80", "", 200},
		{"IPv6", "[::1]:5", "[::1]:80", "", 200},
		{"elsewhere", "192.0.2.1:5", "127.0.0.1", "", 403},
		{"rebound name", "127.0.0.1:5", "evil.example", "", 403},
		{"origin", "127.0.0.1:5", "127.0.0.1", "Origin", 403},
		{"browser", "127.0.0.1:5", "127.0.0.1", "Sec-Fetch-Site", 403},
		{"proxy", "127.0.0.1:5", "127.0.0.1", "X-Forwarded-For", 403},
		{"proxy, of another header", "127.0.0.1:5", "127.0.0.1", "x-forwarded-anything", 403},
		{"proxy of a cloud", "127.0.0.1:5", "127.0.0.1", "X-Real-IP", 403},
		{"no Host", "127.0.0.1:5", "", "", 403},
		{"a name that begins so", "127.0.0.1:5", "localhost.example", "", 403},
		{"an address in a name", "127.0.0.1:5", "127.0.0.1.example:80", "", 403},
		{"mapped", "[::ffff:127.0.0.1]:5", "127.0.0.1", "", 200},
		{"proxy by the standard", "127.0.0.1:5", "127.0.0.1", "Forwarded", 403},
		{"via", "127.0.0.1:5", "127.0.0.1", "Via", 403},
		{"wrong token", "127.0.0.1:5", "127.0.0.1", "Authorization", 401},
	} {
		r := httptest.NewRequest("GET", v1.PathLogs, nil)
		r.RemoteAddr, r.Host = c.remote, c.host
		if c.header != "" {
			r.Header.Set(c.header, "x")
		}
		rec := httptest.NewRecorder()
		w.mux.ServeHTTP(rec, r)
		if rec.Code != c.status {
			t.Errorf("%s: %d %s, want %d", c.name, rec.Code, rec.Body, c.status)
		}
	}
}
