package v1_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// More devices than are held in memory: those that make room are written first, so
// that none of their nonces can be used twice.
func TestDevicesMakeRoom(t *testing.T) {
	const devices = 64
	w := newWorld(t, func(c *v1.Config) { c.MaxDevices = 16 })
	for i := range devices {
		id, key := deviceKey(i)
		w.add(id, key)
	}
	get := func(i, nonce int) int {
		id, key := deviceKey(i)
		return w.do("GET", v1.PathManifest, "", signed(id, key, v1.PathManifest, fmt.Sprint(nonce), w.unix())...).Code
	}
	for round := 1; round <= 3; round++ {
		for i := range devices {
			if got := get(i, round); got != 200 {
				t.Fatalf("round %d, device %d: %d", round, i, got)
			}
			if other := (i + devices/2) % devices; round > 1 {
				if got := get(other, 1); got != 401 {
					t.Fatalf("round %d: a used nonce of device %d: %d", round, other, got)
				}
			}
		}
	}
}

// A nonce is used once, however many requests bring it at once.
func TestOneNonceAtOnce(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range []struct{ method, path string }{{"GET", v1.PathManifest}, {"POST", v1.PathStatus}} {
		var good atomic.Int64
		var wg sync.WaitGroup
		nonce := strconv.Itoa(len(c.method)) // POST's is the higher
		h := signed("dev-1", testKey, c.path, nonce, w.unix())
		for range 32 {
			wg.Go(func() {
				if w.do(c.method, c.path, `{"fota_status":{}}`, h...).Code == 200 {
					good.Add(1)
				}
			})
		}
		wg.Wait()
		if good.Load() != 1 {
			t.Errorf("%s: %d requests with one nonce were taken", c.method, good.Load())
		}
	}
}

// failingReports is a store that can't take reports.
type failingReports struct {
	fleet.Deployments
	err error
}

func (f failingReports) Report(context.Context, string, *fleet.Release, fleet.Report, bool, uint64, time.Time) error {
	return f.err
}

// What is not the caller's fault: the status says whose and when to come back, the
// details go to the log.
func TestServersFaults(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		body   string
		later  bool
		logged bool
	}{
		{fleet.Errorf(fleet.CodeBusy, "too many writes are waiting"), 503, `{"error":"too many writes are waiting","code":"busy"}`, true, false},
		{fleet.Errorf(fleet.CodeNoSpace, "the disk is full"), 507, `{"error":"the disk is full","code":"no_space"}`, true, false},
		{&fleet.Error{Code: fleet.CodeInternal, Message: "the database failed", Op: "write", Err: fmt.Errorf("page 7")}, 500, `{"error":"internal error","code":"internal"}`, false, true},
		{fmt.Errorf("page 7"), 500, `{"error":"internal error","code":"internal"}`, false, true},
	} {
		w := newWorld(t, func(k *v1.Config) { k.Deployments = failingReports{k.Deployments, c.err} })
		seen := map[string]bool{}
		for n := 1; n <= 50; n++ {
			rec := w.do("POST", v1.PathStatus, `{"fota_status":{}}`, signed("dev-1", testKey, v1.PathStatus, fmt.Sprint(n), w.unix())...)
			after := rec.Header().Get("Retry-After")
			if s, err := strconv.Atoi(after); rec.Code != c.status || rec.Body.String() != c.body || (err == nil && s >= 5 && s <= 30) != c.later {
				t.Fatalf("%v: %d, Retry-After %q, %s", c.err, rec.Code, after, rec.Body)
			}
			seen[after] = true
		}
		if c.later && len(seen) < 5 {
			t.Errorf("%v: 50 answers name %d times to come back", c.err, len(seen))
		}
		if got := strings.Contains(w.log.String(), "page 7"); got != c.logged {
			t.Errorf("%v: log: %s", c.err, w.log.String())
		}
	}
}

// An image that is missing or damaged on the disk is the server's trouble: no device
// is told that its chunk does not exist, none gets the bytes.
func TestImageGone(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"gone":    func([]byte) []byte { return nil },
		"altered": func(b []byte) []byte { b[5]++; return b },
		"cut":     func(b []byte) []byte { return b[:100] },
	} {
		w := newWorld(t, func(c *v1.Config) { c.SilentDevice = "dev-1" })
		r := w.publish("1", testImage(2048), 1024)
		w.blobs.blobs[r.Image.Digest] = damage(w.blobs.blobs[r.Image.Digest])
		rec := w.do("GET", v1.PathChunk+"?chunk_number=0", "")
		if rec.Code != 500 || rec.Body.String() != `{"error":"internal error","code":"internal"}` || !strings.Contains(w.log.String(), "image of release") {
			t.Errorf("%s: %d %s; log: %s", name, rec.Code, rec.Body, w.log.String())
		}
	}
}

// Prepared answers take no more memory than was given, and the release that is in
// use longest ago makes room.
func TestImagesMakeRoom(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.SilentDevice, c.CacheBytes = "dev-1", 40<<10 })
	fetch := func(version byte) {
		image := testImage(10 << 10) // with its base64, 24 KiB
		image[0] = version
		w.publish(string(version), image, 1024)
		w.want(w.do("GET", v1.PathManifest, ""), 200, `"version":"`+string(version)+`"`)
		for n := range 10 {
			w.want(w.do("GET", fmt.Sprintf("%s?chunk=%d", v1.PathChunk, n), ""), 200, `"mac"`)
		}
	}
	for i := range byte(5) {
		fetch('a' + i)
		if w.blobs.opens != int(i)+1 {
			t.Fatalf("%d releases and %d readings", i+1, w.blobs.opens)
		}
	}
}

func TestMethods(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.SilentDevice, c.OpenOperator = "dev-1", true })
	for path, method := range map[string]string{v1.PathManifest: "GET", v1.PathChunk: "GET", v1.PathRollback: "GET", v1.PathStatus: "POST",
		v1.PathUpload: "POST", v1.PathFleetStatus: "GET", v1.PathOrderRollback: "POST", v1.PathLogs: "GET"} {
		for _, m := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"} {
			r := httptest.NewRequest(m, path, nil)
			r.RemoteAddr, r.Host = "127.0.0.1:5", "127.0.0.1"
			rec := httptest.NewRecorder()
			w.mux.ServeHTTP(rec, r)
			if (rec.Code == 405) == (m == method) || rec.Code == 405 && rec.Header().Get("Allow") != method {
				t.Errorf("%s %s: %d, Allow %q", m, path, rec.Code, rec.Header().Get("Allow"))
			}
		}
	}
}

// held is a publisher that waits.
type held struct{ inside, free chan struct{} }

func (h held) PublishImage(context.Context, string, string, int, *fleet.Digest, io.Reader) (fleet.Release, bool, error) {
	h.inside <- struct{}{}
	<-h.free
	return fleet.Release{Version: "1", ChunkSize: 1024, Image: fleet.Image{Size: 3}}, true, nil
}

// Each upload has its image in memory: a third at once is told to come back.
func TestUploadsAtOnce(t *testing.T) {
	h := held{make(chan struct{}), make(chan struct{})}
	w := newWorld(t, func(c *v1.Config) { c.Publisher = h })
	body := fmt.Sprintf(`{"version":"1","size":3,"hash":"%x","firmware_data":"YWJj"}`, sha256.Sum256([]byte("abc")))
	upload := func() *httptest.ResponseRecorder {
		return w.do("POST", v1.PathUpload, body, "Authorization", "Bearer "+w.token)
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { w.want(upload(), 200, "success") })
		<-h.inside
	}
	w.want(upload(), 503, `"code":"busy"`)
	close(h.free)
	wg.Wait()
}

// heldReports is a store whose reports wait before they are stored.
type heldReports struct {
	fleet.Deployments
	inside, free chan struct{}
}

func (h heldReports) Report(ctx context.Context, device string, r *fleet.Release, rep fleet.Report, proven bool, nonce uint64, now time.Time) error {
	h.inside <- struct{}{}
	<-h.free
	return h.Deployments.Report(ctx, device, r, rep, proven, nonce, now)
}

// While a report is on its way its nonce is not written behind, or the store would
// refuse the report as one that it has, and its device stays in memory, or the nonce
// could be used again.
func TestReportUnderWay(t *testing.T) {
	h := heldReports{inside: make(chan struct{}), free: make(chan struct{})}
	w := newWorld(t, func(c *v1.Config) {
		h.Deployments = c.Deployments
		c.Deployments, c.MaxDevices = h, 16
	})
	var wg sync.WaitGroup
	wg.Go(func() {
		w.want(w.do("POST", v1.PathStatus, `{"fota_status":{}}`, signed("dev-1", testKey, v1.PathStatus, "5", w.unix())...), 200, "success")
	})
	<-h.inside
	for i := range 40 {
		id, key := deviceKey(i)
		w.add(id, key)
		w.want(w.do("GET", v1.PathManifest, "", signed(id, key, v1.PathManifest, "1", w.unix())...), 200, "{}")
	}
	if err := w.wire.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", v1.PathManifest, "", signed("dev-1", testKey, v1.PathManifest, "5", w.unix())...), 401, "replay")
	close(h.free)
	wg.Wait()
}
