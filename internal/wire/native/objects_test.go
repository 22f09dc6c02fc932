package native

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/httpserver"
)

// shelf is files, of which only some are streams, and one manifest.
type shelf struct {
	*dir.Dir
	mu       sync.Mutex
	sizes    map[fleet.Digest]int64
	envelope []byte
	sheet    []byte
	asked    int
	err      error
}

func (s *shelf) Stream(_ context.Context, d fleet.Digest) (fleet.Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.err != nil {
		return fleet.Stream{}, s.err
	}
	if n, ok := s.sizes[d]; ok {
		return fleet.Stream{Digest: d, Length: n}, nil
	}
	return fleet.Stream{}, fleet.Errorf(fleet.CodeNotFound, "no stream")
}

func (s *shelf) Manifest(_ context.Context, d fleet.Digest) (fleet.Manifest, error) {
	if d != sha256.Sum256(s.envelope) {
		return fleet.Manifest{}, fleet.Errorf(fleet.CodeNotFound, "no manifest")
	}
	return fleet.Manifest{Digest: d, Envelope: s.envelope}, nil
}

func (s *shelf) Sheet(_ context.Context, d fleet.Digest) (fleet.Stream, error) {
	if d != sha256.Sum256(s.sheet) {
		return fleet.Stream{}, fleet.Errorf(fleet.CodeNotFound, "no sheet")
	}
	return fleet.Stream{Sheet: s.sheet}, nil
}

func (s *shelf) put(t testing.TB, b []byte) fleet.Digest {
	t.Helper()
	d, _, err := s.Put(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// world is objects behind a real server on a real port.
type world struct {
	*shelf
	t      testing.TB
	log    bytes.Buffer
	url    string
	spy    *spyListener
	stream []byte
	digest fleet.Digest
}

func newWorld(t testing.TB, change func(*ObjectsConfig)) *world {
	t.Helper()
	blobs, err := dir.Open(dir.Options{Path: t.TempDir(), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, shelf: &shelf{Dir: blobs, sizes: map[fleet.Digest]int64{}, envelope: []byte("a signed manifest"), sheet: []byte("a signed sheet")}, stream: make([]byte, 1_100_000)}
	rand.NewChaCha8([32]byte{1}).Read(w.stream)
	w.digest = w.put(t, w.stream)
	w.sizes[w.digest] = int64(len(w.stream))
	c := ObjectsConfig{Files: w.shelf, Index: w.shelf, Log: slog.New(slog.NewTextHandler(&w.log, nil))}
	if change != nil {
		change(&c)
	}
	mux := http.NewServeMux()
	NewObjects(c).Register(mux)
	server := httpserver.New(mux, 0, c.Log)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.spy = &spyListener{Listener: l}
	w.url = "http://" + l.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, w.spy, nil) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return w
}

// do asks for a path with headers, without following.
func (w *world) do(method, path string, headers ...string) (*http.Response, []byte) {
	w.t.Helper()
	req, err := http.NewRequest(method, w.url+path, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp, b
}

func (w *world) path() string { return "/r1/streams/" + w.digest.String() }

// Every kind of request that curl can make, and what comes of it.
func TestStreamRanges(t *testing.T) {
	w := newWorld(t, nil)
	size := len(w.stream)
	etag := `"` + w.digest.String() + `"`
	const whole, none = "whole", "none"
	for _, c := range []struct {
		name    string
		headers []string
		status  int
		want    string // whole, none, or "from-to" of a 206
	}{
		{"no range", nil, 200, whole},
		{"from the start", []string{"Range", "bytes=0-"}, 206, fmt.Sprintf("0-%d", size-1)},
		{"one byte", []string{"Range", "bytes=0-0"}, 206, "0-0"},
		{"in the middle", []string{"Range", "bytes=1056-2111"}, 206, "1056-2111"},
		{"32 bytes early", []string{"Range", "bytes=1024-"}, 206, fmt.Sprintf("1024-%d", size-1)},
		{"the last byte", []string{"Range", fmt.Sprintf("bytes=%d-", size-1)}, 206, fmt.Sprintf("%d-%d", size-1, size-1)},
		{"a suffix", []string{"Range", "bytes=-100"}, 206, fmt.Sprintf("%d-%d", size-100, size-1)},
		{"a suffix longer than all", []string{"Range", "bytes=-99999999"}, 206, fmt.Sprintf("0-%d", size-1)},
		{"an end beyond the end", []string{"Range", "bytes=10-99999999"}, 206, fmt.Sprintf("10-%d", size-1)},
		{"an end beyond all numbers", []string{"Range", "bytes=10-99999999999999999999999"}, 206, fmt.Sprintf("10-%d", size-1)},
		{"another case", []string{"Range", "Bytes=5-6"}, 206, "5-6"},
		{"at the end", []string{"Range", fmt.Sprintf("bytes=%d-", size)}, 416, none},
		{"beyond the end", []string{"Range", "bytes=99999999-"}, 416, none},
		{"beyond all numbers", []string{"Range", "bytes=99999999999999999999999-"}, 416, none},
		{"the last 0 bytes", []string{"Range", "bytes=-0"}, 416, none},
		{"backwards", []string{"Range", "bytes=7-3"}, 416, ""},
		{"no numbers", []string{"Range", "bytes=a-b"}, 416, ""},
		{"a sign", []string{"Range", "bytes=+1-2"}, 416, ""},
		{"nothing", []string{"Range", "bytes=-"}, 416, ""},
		{"two ranges", []string{"Range", "bytes=0-1,5-6"}, 200, whole},
		{"many ranges", []string{"Range", "bytes=0-" + strings.Repeat(",0-", 1000)}, 200, whole},
		{"two headers", []string{"Range", "bytes=0-1", "Range", "bytes=2-3"}, 200, whole},
		{"another unit", []string{"Range", "records=0-1"}, 200, whole},
		{"If-Range right", []string{"Range", "bytes=1-2", "If-Range", etag}, 206, "1-2"},
		{"If-Range another", []string{"Range", "bytes=1-2", "If-Range", `"0000"`}, 200, whole},
		{"If-Range weak", []string{"Range", "bytes=1-2", "If-Range", "W/" + etag}, 200, whole},
		{"If-Range a date", []string{"Range", "bytes=1-2", "If-Range", "Mon, 23 Nov 2026 12:00:00 GMT"}, 200, whole},
		{"If-Range another, beyond the end", []string{"Range", "bytes=99999999-", "If-Range", `"0000"`}, 200, whole},
		{"the last 0 bytes of another", []string{"Range", "bytes=-0", "If-Range", `"0000"`}, 200, whole},
		{"If-None-Match", []string{"If-None-Match", etag}, 304, none},
		{"If-None-Match another", []string{"If-None-Match", `"0000"`}, 200, whole},
		{"If-Match another", []string{"If-Match", `"0000"`}, 412, none},
		{"If-Modified-Since", []string{"If-Modified-Since", "Mon, 23 Nov 2099 12:00:00 GMT"}, 200, whole},
		{"compressed, if you can", []string{"Accept-Encoding", "gzip, br"}, 200, whole},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			resp, body := w.do(method, w.path(), c.headers...)
			h := resp.Header
			want, span := w.stream, ""
			switch {
			case c.status == 206:
				var from, to int
				if _, err := fmt.Sscanf(c.want, "%d-%d", &from, &to); err != nil {
					t.Fatal(err)
				}
				want, span = w.stream[from:to+1], fmt.Sprintf("bytes %s/%d", c.want, size)
			case c.status == 416 && c.want == none:
				span = fmt.Sprintf("bytes */%d", size)
			}
			if resp.StatusCode != c.status || h.Get("Content-Range") != span {
				t.Errorf("%s %s: %d, Content-Range %q, not %d, %q", method, c.name, resp.StatusCode, h.Get("Content-Range"), c.status, span)
				continue
			}
			if h.Get("Content-Encoding") != "" || h.Get("Transfer-Encoding") != "" || h.Get("Last-Modified") != "" {
				t.Errorf("%s %s: %v", method, c.name, h)
			}
			if c.status >= 400 && (strings.Contains(h.Get("Cache-Control"), "immutable") || h.Get("ETag") != "") && c.status != 412 {
				t.Errorf("%s %s: an error may be kept: %v", method, c.name, h)
			}
			if c.status >= 300 {
				continue
			}
			if h.Get("Content-Length") != strconv.Itoa(len(want)) || h.Get("ETag") != etag || h.Get("Accept-Ranges") != "bytes" ||
				h.Get("Cache-Control") != "public, max-age=31536000, immutable, no-transform" || h.Get("Content-Type") != "application/octet-stream" {
				t.Errorf("%s %s: %v", method, c.name, h)
			}
			if method == "HEAD" {
				want = nil
			}
			if !bytes.Equal(body, want) {
				t.Errorf("%s %s: %d bytes, not the %d", method, c.name, len(body), len(want))
			}
		}
	}
	if w.asked != 1 {
		t.Errorf("the index was asked %d times for what never changes", w.asked)
	}
}

// What is no stream is none, whatever lies in the folder; nothing of the inside is told.
func TestNoStream(t *testing.T) {
	w := newWorld(t, nil)
	image := w.put(t, []byte("the bytes of an image, that only its devices may read"))
	gone := fleet.Digest{7}
	w.sizes[gone] = 100
	short := w.put(t, []byte("cut"))
	w.sizes[short] = 4
	for _, c := range []struct {
		name, method, path string
		status             int
		code               string
	}{
		{"an image", "GET", "/r1/streams/" + image.String(), 404, "not_found"},
		{"unknown", "GET", "/r1/streams/" + strings.Repeat("0", 64), 404, "not_found"},
		{"upper case", "GET", "/r1/streams/" + strings.ToUpper(w.digest.String()), 404, "not_found"},
		{"too short", "GET", "/r1/streams/" + w.digest.String()[:63], 404, "not_found"},
		{"no hex", "GET", "/r1/streams/" + strings.Repeat("g", 64), 404, "not_found"},
		{"a way up", "GET", "/r1/streams/..%2f..%2fadmin.token", 404, "not_found"},
		{"nothing", "GET", "/r1/streams/", 404, "not_found"},
		{"deeper", "GET", w.path() + "/x", 404, "not_found"},
		{"a file that is gone", "GET", "/r1/streams/" + gone.String(), 500, "internal"},
		{"a file that is cut", "GET", "/r1/streams/" + short.String(), 500, "internal"},
		{"a POST", "POST", w.path(), 405, "method_not_allowed"},
		{"no sheet", "GET", "/r1/sheets/" + w.digest.String(), 404, "not_found"},
		{"a manifest is no sheet", "GET", "/r1/sheets/" + fleet.Digest(sha256.Sum256(w.envelope)).String(), 404, "not_found"},
		{"no manifest", "GET", "/r1/manifests/" + w.digest.String(), 404, "not_found"},
		{"a manifest is no stream", "GET", "/r1/streams/" + fleet.Digest(sha256.Sum256(w.envelope)).String(), 404, "not_found"},
	} {
		resp, body := w.do(c.method, c.path)
		if resp.StatusCode != c.status || !strings.Contains(string(body), `"code":"`+c.code+`"`) || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s %v", c.name, resp.StatusCode, body, resp.Header)
		}
		for _, secret := range []string{"image", "cut", "file", "/tmp"} {
			if strings.Contains(string(body), secret) {
				t.Errorf("%s: the answer says %q: %s", c.name, secret, body)
			}
		}
	}
	if n := strings.Count(w.log.String(), "an object can't be served"); n != 2 {
		t.Errorf("logged %d times: %s", n, w.log.String())
	}
	w.err = errors.New("page 7 is damaged")
	if resp, body := w.do("GET", "/r1/streams/"+strings.Repeat("1", 64)); resp.StatusCode != 500 || strings.Contains(string(body), "page 7") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestEnvelopes(t *testing.T) {
	w := newWorld(t, func(c *ObjectsConfig) { c.Redirect = "https://cdn.example.com/" }) // of streams alone
	for path, envelope := range map[string][]byte{"/r1/manifests/": w.envelope, "/r1/sheets/": w.sheet} {
		d := fleet.Digest(sha256.Sum256(envelope))
		resp, body := w.do("GET", path+d.String())
		if resp.StatusCode != 200 || !bytes.Equal(body, envelope) || resp.Header.Get("ETag") != `"`+d.String()+`"` ||
			resp.Header.Get("Content-Type") != "application/cose" || resp.Header.Get("Cache-Control") != objectCache {
			t.Errorf("%s: %d %q %v", path, resp.StatusCode, body, resp.Header)
		}
		if resp, body := w.do("GET", path+d.String(), "Range", "bytes=2-7"); resp.StatusCode != 206 || string(body) != "signed" {
			t.Errorf("%s: %d %q", path, resp.StatusCode, body)
		}
	}
}

func TestRedirect(t *testing.T) {
	w := newWorld(t, func(c *ObjectsConfig) { c.Redirect = "https://cdn.example.com/s/" })
	to := "https://cdn.example.com/s/" + w.digest.String()
	for _, c := range []struct{ query, location string }{
		{"", to},
		{"?fresh=3", to + "?fresh=3"},
		{"?fresh=3&more=x", to + "?fresh=3"},
		{"?fresh=../x", to},
		{"?fresh=1%0d%0aSet-Cookie:x", to},
		{"?origin=0", to},
		{"?origin=1", ""},
		{"?fresh=2&origin=1", ""},
	} {
		resp, body := w.do("GET", w.path()+c.query)
		switch {
		case c.location == "" && (resp.StatusCode != 200 || !bytes.Equal(body, w.stream)):
			t.Errorf("%s: %d, %d bytes", c.query, resp.StatusCode, len(body))
		case c.location != "" && (resp.StatusCode != 302 || resp.Header.Get("Location") != c.location || resp.Header.Get("Cache-Control") != "no-store" || len(body) != 0):
			t.Errorf("%s: %d %v", c.query, resp.StatusCode, resp.Header)
		}
	}
	if resp, _ := w.do("GET", "/r1/streams/"+strings.Repeat("0", 64)); resp.StatusCode != 404 {
		t.Errorf("what is unknown lies elsewhere: %d", resp.StatusCode)
	}
	for prefix, good := range map[string]bool{"https://cdn.example.com/": true, "http://10.0.0.1:8080/a?": false, "http://x/#": false, "ftp://x/": false,
		"cdn.example.com/": false, "https://": false, "": false, "https://user:pw@x/": false, "http://x/streams-": true} {
		err := CheckRedirect(prefix)
		if (err == nil) != good || err != nil && (fleet.CodeOf(err) != fleet.CodeInvalid || strings.Contains(err.Error(), "pw")) {
			t.Errorf("%q: %v", prefix, err)
		}
	}
}

// Without a redirect, what caches are told to do means nothing here.
func TestQueryIsIgnored(t *testing.T) {
	w := newWorld(t, nil)
	for _, q := range []string{"?fresh=1", "?origin=1", "?fresh=2&origin=1", "?x=y"} {
		if resp, body := w.do("GET", w.path()+q); resp.StatusCode != 200 || !bytes.Equal(body, w.stream) {
			t.Errorf("%s: %d", q, resp.StatusCode)
		}
	}
}

// Those who read slowly don't keep others from polling: one stream more than are
// allowed at once is told to come back.
func TestTooManyStreams(t *testing.T) {
	held, release := make(chan struct{}), make(chan struct{})
	w := newWorld(t, func(c *ObjectsConfig) {
		c.MaxStreams = 1
		c.Files = &slowFiles{c.Files, held, release}
	})
	first := make(chan int)
	go func() {
		resp, body := w.do("GET", w.path())
		first <- resp.StatusCode + len(body)
	}()
	<-held
	resp, body := w.do("GET", w.path())
	if after, err := strconv.Atoi(resp.Header.Get("Retry-After")); resp.StatusCode != 503 || err != nil || after < 1 || !strings.Contains(string(body), `"busy"`) {
		t.Errorf("%d %s %v", resp.StatusCode, body, resp.Header)
	}
	close(release)
	if got := <-first; got != 200+len(w.stream) {
		t.Errorf("the first one: %d", got)
	}
	if resp, _ := w.do("GET", w.path()); resp.StatusCode != 200 {
		t.Errorf("after it: %d", resp.StatusCode)
	}
}

// slowFiles holds up the first who opens.
type slowFiles struct {
	StreamFiles
	held, release chan struct{}
}

func (s *slowFiles) Open(ctx context.Context, d fleet.Digest) (*os.File, error) {
	if s.held != nil {
		close(s.held)
		s.held = nil
		<-s.release
	}
	return s.StreamFiles.Open(ctx, d)
}

// spyListener's connections note what is given to ReadFrom, which is where
// *net.TCPConn uses sendfile.
type spyListener struct {
	net.Listener
	mu    sync.Mutex
	kinds []string
}

func (l *spyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &spyConn{c.(*net.TCPConn), l}, nil
}

type spyConn struct {
	*net.TCPConn
	l *spyListener
}

func (c *spyConn) ReadFrom(r io.Reader) (int64, error) {
	// What internal/poll.SendFile can take: a file, within a limit or not (net/sendfile.go).
	kind := fmt.Sprintf("%T", r)
	if lim, ok := r.(*io.LimitedReader); ok {
		kind = fmt.Sprintf("%d bytes of %T", lim.N, lim.R)
	}
	c.l.mu.Lock()
	c.l.kinds = append(c.l.kinds, kind)
	c.l.mu.Unlock()
	return c.TCPConn.ReadFrom(r)
}

// The stream reaches the connection as a file, through all of the server: else
// it would be copied through the program (architecture, rule 6).
func TestSendfileSurvives(t *testing.T) {
	w := newWorld(t, nil)
	w.do("GET", w.path())
	w.do("GET", w.path(), "Range", "bytes=1000-100999")
	w.spy.mu.Lock()
	defer w.spy.mu.Unlock()
	// net/http writes the first 512 bytes itself (response.ReadFrom).
	want := []string{fmt.Sprintf("%d bytes of *os.File", len(w.stream)-512), fmt.Sprintf("%d bytes of *os.File", 100_000-512)}
	if fmt.Sprint(w.spy.kinds) != fmt.Sprint(want) {
		t.Errorf("%q, not %q", w.spy.kinds, want)
	}
}

// FuzzRange: what setRange leaves is what RFC 9110 says, whatever was there.
func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-", "bytes=-5", "bytes=-0", "bytes=5-3", "bytes=1-2,3-4", "records=1-2", "bytes=99999999999999999999-", "bytes", "bytes=--5", "", "bytes= 1-2"} {
		f.Add(s)
	}
	body := bytes.NewReader([]byte("0123456789"))
	f.Fuzz(func(t *testing.T, s string) {
		h := http.Header{"Range": {s}}
		setRange(h, 10)
		rec := &recorder{header: http.Header{}}
		http.ServeContent(rec, &http.Request{Method: "GET", Header: h}, "", time.Time{}, body)
		switch rec.status {
		case 200:
			if rec.body.String() != "0123456789" {
				t.Fatalf("%q: %q", s, rec.body.String())
			}
		case 206:
			var from, to int
			if _, err := fmt.Sscanf(rec.header.Get("Content-Range"), "bytes %d-%d/10", &from, &to); err != nil || from > to || to > 9 || rec.body.String() != "0123456789"[from:to+1] {
				t.Fatalf("%q: %v %q", s, rec.header, rec.body.String())
			}
		case 416:
		default:
			t.Fatalf("%q: %d", s, rec.status)
		}
	})
}

type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(n int)           { r.status = n }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

// awayFiles are where nobody answers.
type awayFiles struct{ err error }

func (a awayFiles) Open(context.Context, fleet.Digest) (*os.File, error) { return nil, a.err }

// What comes later is told to come later; what is missing is the server's trouble.
func TestFilesAway(t *testing.T) {
	for code, want := range map[fleet.Code]int{fleet.CodeBusy: 503, fleet.CodeNoSpace: 503, fleet.CodeNotFound: 500, fleet.CodeInternal: 500} {
		w := newWorld(t, func(c *ObjectsConfig) { c.Files = awayFiles{fleet.Errorf(code, "the bucket is away")} })
		resp, body := w.do("GET", w.path())
		if resp.StatusCode != want || (resp.Header.Get("Retry-After") != "") != (want == 503) || resp.Header.Get("Cache-Control") != "no-store" || bytes.Contains(body, []byte("bucket")) {
			t.Errorf("%s: %d %v %s", code, resp.StatusCode, resp.Header, body)
		}
	}
}

// Callers are sent to a signed URL, a new one each time; the origin serves here, and
// so does a server that can sign none.
func TestSignedRedirect(t *testing.T) {
	n := 0
	var fails error
	w := newWorld(t, func(c *ObjectsConfig) {
		c.Sign = func(_ context.Context, d fleet.Digest) (string, error) {
			n++
			return "https://storage.example.com/" + d.String() + "?n=" + strconv.Itoa(n), fails
		}
	})
	for i, query := range []string{"", "?fresh=7"} {
		resp, _ := w.do("GET", w.path()+query)
		if resp.StatusCode != 302 || resp.Header.Get("Location") != "https://storage.example.com/"+w.digest.String()+"?n="+strconv.Itoa(i+1) || resp.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%d %v", resp.StatusCode, resp.Header)
		}
	}
	if resp, body := w.do("GET", w.path()+"?origin=1"); resp.StatusCode != 200 || !bytes.Equal(body, w.stream) || n != 2 {
		t.Errorf("the origin: %d", resp.StatusCode)
	}
	if resp, _ := w.do("GET", "/r1/streams/"+strings.Repeat("0", 64)); resp.StatusCode != 404 || n != 2 {
		t.Errorf("what is no stream is signed: %d", resp.StatusCode)
	}
	fails = errors.New("no credentials")
	if resp, body := w.do("GET", w.path()); resp.StatusCode != 200 || !bytes.Equal(body, w.stream) {
		t.Errorf("nothing signs: %d", resp.StatusCode)
	}
}
