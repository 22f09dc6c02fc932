package v1_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/opentest"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// sink counts what is answered and keeps nothing.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header         { return s.header }
func (s *sink) WriteHeader(n int)           { s.status = n }
func (s *sink) Write(p []byte) (int, error) { s.bytes += len(p); return len(p), nil }

var _ io.Writer = (*sink)(nil)

func chunkRequest(id string, key fleet.Key, n, nonce int, ts string) *http.Request {
	target := fmt.Sprintf("%s?chunk_number=%d", v1.PathChunk, n)
	r, err := http.NewRequest("GET", target, nil)
	if err != nil {
		panic(err) // our own text
	}
	h := signed(id, key, target, fmt.Sprint(nonce), ts)
	for i := 0; i < len(h); i += 2 {
		r.Header.Set(h[i], h[i+1])
	}
	return r
}

func deviceKey(i int) (string, fleet.Key) {
	var k fleet.Key
	binary.BigEndian.PutUint64(k[:], uint64(i)+1)
	return fmt.Sprintf("board-%05d", i), k
}

// One release for 10,000 devices, each with a key of its own: one copy of the
// image, read once, and no SQL for a chunk (the store is closed after the first).
func TestManyDevices(t *testing.T) {
	opentest.OneServer(t)
	devices, chunks := manyDevices, 8
	if testing.Short() {
		devices = 500
	}
	w := newWorld(t, nil)
	image := testImage(chunks << 10)
	w.publish("1", image, 1024)
	for i := range devices {
		id, key := deviceKey(i)
		w.add(id, key)
	}
	ts := w.unix()
	out := &sink{header: http.Header{}}
	fetch := func(device, chunk, nonce int) {
		id, key := deviceKey(device)
		clear(out.header)
		out.status = http.StatusOK
		w.mux.ServeHTTP(out, chunkRequest(id, key, chunk, nonce, ts))
		if out.status != http.StatusOK {
			t.Fatalf("device %d, chunk %d: status %d", device, chunk, out.status)
		}
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range devices {
		fetch(i, 0, 1)
	}
	known := heap()
	// From here on the store answers nothing. It has every device's nonce.
	if err := w.wire.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	written := 0
	list, err := w.store.ListDevices(t.Context())
	for _, d := range list {
		if d.Nonce == 1 && d.Clocked && d.Signed {
			written++
		}
	}
	if err != nil || written != devices {
		t.Errorf("%d of %d devices are written, %v", written, devices, err)
	}
	w.close()
	for c := 1; c < chunks; c++ {
		for i := range devices {
			fetch(i, c, c+1)
		}
	}
	after := heap()
	perDevice := float64(int64(known)-int64(before)) / float64(devices)
	grown := int64(after) - int64(known)
	t.Logf("%d devices x %d chunks: %d bytes answered; heap %.0f bytes a device, %d more after all chunks; the image was read %d time(s)",
		devices, chunks, out.bytes, perDevice, grown, w.blobs.opens)
	if perDevice > 2048 || grown > int64(len(image))+4<<20 {
		t.Errorf("memory grows with devices or chunks")
	}
	if w.blobs.opens != 1 {
		t.Errorf("the image was read %d times", w.blobs.opens)
	}
	if want := devices * len(image) * 4 / 3; out.bytes < want {
		t.Errorf("answers have %d bytes, less than %d", out.bytes, want)
	}
	// The request's own allocations are made outside of what is counted.
	next := 100
	id, key := deviceKey(0)
	requests := make([]*http.Request, 0, 202)
	for range cap(requests) {
		next++
		requests = append(requests, chunkRequest(id, key, 1, next, ts))
	}
	n := 0
	allocs := testing.AllocsPerRun(200, func() {
		w.mux.ServeHTTP(out, requests[n])
		n++
	})
	t.Logf("%.1f allocations a chunk", allocs)
	if allocs > 25 {
		t.Errorf("%.1f allocations a chunk", allocs)
	}
	if strings.Contains(w.log.String(), "level=ERROR") {
		t.Errorf("log: %s", w.log.String())
	}
}

// BenchmarkChunk: answers of 1,024 bytes, MAC check and MAC included; ns/op is for one.
func BenchmarkChunk(b *testing.B) {
	w := newWorld(b, nil)
	w.publish("1", testImage(1<<20), 1024)
	ts := w.unix()
	requests := make([]*http.Request, b.N)
	for i := range requests {
		requests[i] = chunkRequest("dev-1", testKey, i%1024, i+1, ts)
	}
	out := &sink{header: http.Header{}}
	w.mux.ServeHTTP(out, requests[0])
	b.ReportAllocs()
	b.ResetTimer()
	for _, r := range requests[1:] {
		w.mux.ServeHTTP(out, r)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "chunks/s")
}

func FuzzReport(f *testing.F) {
	w := newWorld(f, func(c *v1.Config) { c.SilentDevice = "dev-1" })
	for _, s := range []string{`{"fota_status":{"chunk_received":1}}`, `{"fota_status":{"progress":1e999,"error":5}}`, `{`, `null`, `[]`,
		seal(testKey, "1", "77", `{"fota_status":{}}`), `{"payload":"e30=","mac":""}`, `{"fota_status":null}`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, body string) {
		w.t = t
		if rec := w.do("POST", v1.PathStatus, body, "Device-ID", "dev-1"); rec.Code >= 500 {
			t.Errorf("%q: %d %s", body, rec.Code, rec.Body)
		}
	})
}
