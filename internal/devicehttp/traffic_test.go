package devicehttp

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/device"
)

// countedListener counts what a server's connections carry, at their other end.
type countedListener struct {
	net.Listener
	t traffic
}

func (l *countedListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &countedConn{Conn: c, t: &l.t}, nil
}

// What one end sent the other received: heads and bodies, of every connection.
func TestTrafficIsWhatTheOtherEndSaw(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Error(err)
		}
		if r.URL.Path == "/last" {
			w.Header().Set("Connection", "close")
		}
		io.WriteString(w, strings.Repeat("x", 3000))
	}))
	l := &countedListener{Listener: s.Listener}
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	c, err := New(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if sent, received := c.Traffic(); sent != 0 || received != 0 {
		t.Errorf("%d and %d bytes before the first request", sent, received)
	}
	ask := func(target, body string) {
		t.Helper()
		r, err := c.Do(context.Background(), &device.Request{Method: "POST", Target: []byte(target), Body: []byte(body)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		ask("/p", strings.Repeat("y", 500))
	}
	ask("/last", "y")
	c.Close()
	s.Close() // waits for its connections: what they wrote is counted
	sent, received := c.Traffic()
	if sent != l.t.received.Load() || received != l.t.sent.Load() {
		t.Errorf("sent %d and received %d; the server received %d and sent %d", sent, received, l.t.received.Load(), l.t.sent.Load())
	}
	if sent < int64(3*500+4*len("POST /p HTTP/1.1\r\n")) || received < int64(4*(3000+len("HTTP/1.1 200 OK\r\n"))) {
		t.Errorf("sent %d and received %d bytes: headers or bodies are missing", sent, received)
	}
}

// A device that turns away from a long stream does not fetch the rest of it.
func TestCloseLeavesALongBody(t *testing.T) {
	const size = 4 << 20
	c := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Range", "bytes 0-4194303/4194304")
		w.Header().Set("Content-Length", "4194304")
		w.WriteHeader(http.StatusPartialContent)
		io.Copy(w, io.LimitReader(endless{}, size)) // it ends early: that is the test
	})
	r, err := c.Do(t.Context(), &device.Request{Method: "GET", Target: []byte("/s"), Ranged: true, To: size - 1})
	if err != nil {
		t.Fatal(err)
	}
	if n, _, err := r.Read(make([]byte, 1024)); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	// What the transport had read ahead is counted: its buffer, not the stream.
	if _, received := c.Traffic(); received > maxBody {
		t.Errorf("%d bytes were fetched for 1,024", received)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }
