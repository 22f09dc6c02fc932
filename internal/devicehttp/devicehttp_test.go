package devicehttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/device"
)

func start(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c, err := New(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func get(ctx context.Context, c *Client, target string) (int, string, error) {
	r, err := c.Do(ctx, &device.Request{Method: "GET", Target: []byte(target), DeviceID: "d", Nonce: []byte("1"), Timestamp: []byte("2"), MAC: []byte("ab")})
	if err != nil {
		return 0, "", err
	}
	defer r.Close()
	var all strings.Builder
	buf := make([]byte, 64)
	for {
		n, eof, err := r.Read(buf)
		all.Write(buf[:n])
		if eof || err != nil {
			return int(r.Head().Status), all.String(), err
		}
	}
}

func TestHeadersAndBody(t *testing.T) {
	c := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Method, r.URL.RequestURI(), r.Header.Get("Device-ID"), r.Header.Get("X-Nonce"), r.Header.Get("X-Timestamp"),
			r.Header.Get("X-MAC"), r.Header.Get("Accept-Encoding"), string(body))
	})
	_, got, err := get(t.Context(), c, "/a?b=1")
	if err != nil || got != "GET/a?b=1d12ab" {
		t.Errorf("%q, %v", got, err)
	}
	r, err := c.Do(t.Context(), &device.Request{Method: "POST", Target: []byte("/p"), Body: []byte("{}")})
	if err != nil {
		t.Fatal(err)
	}
	b, _, err := r.Read(make([]byte, 100))
	if err != nil || b != len("POST/p{}") {
		t.Errorf("%d bytes, %v", b, err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestBounds(t *testing.T) {
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	c := start(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		case "/stuck":
			w.(http.Flusher).Flush()
			select {
			case <-stop:
			case <-r.Context().Done():
			}
		case "/truncated":
			w.Header().Set("Content-Length", "100")
			fmt.Fprint(w, "short")
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		case "/busy":
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	if _, _, err := get(t.Context(), c, "/endless"); !errors.Is(err, ErrTooLong) {
		t.Errorf("endless body: %v", err)
	}
	for _, path := range []string{"/truncated", "/loop", "/away"} {
		if _, _, err := get(t.Context(), c, path); err == nil {
			t.Errorf("%s: no error", path)
		}
	}
	c.Timeout = 50 * time.Millisecond
	if _, _, err := get(t.Context(), c, "/stuck"); err == nil {
		t.Error("a stuck body ends with no error")
	}
	c.Timeout = 0
	r, err := c.Do(t.Context(), &device.Request{Method: "GET", Target: []byte("/busy")})
	if err != nil || r.Head().Status != 503 || r.Head().RetryAfter != 7 {
		t.Errorf("busy: %+v, %v", r, err)
	}
	r.Close()
}

func TestNew(t *testing.T) {
	for _, bad := range []string{"", "127.0.0.1:80", "ftp://x", "http://"} {
		if _, err := New(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
