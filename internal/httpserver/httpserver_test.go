package httpserver

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// pipes is a listener whose connections are in memory, so that in a synctest
// bubble time-outs take no time.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

func (p *pipes) dial() net.Conn {
	here, there := net.Pipe()
	p.conns <- there
	return here
}

// running is a server in a bubble.
type running struct {
	*pipes
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, maxRequests int, routes map[string]http.HandlerFunc) *running {
	t.Helper()
	return startWith(t, maxRequests, routes, func(*Server) {})
}

func startWith(t *testing.T, maxRequests int, routes map[string]http.HandlerFunc, set func(*Server)) *running {
	t.Helper()
	mux := http.NewServeMux()
	for pattern, h := range routes {
		mux.HandleFunc(pattern, h)
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &running{newPipes(), stop, make(chan error, 1)}
	s := New(mux, maxRequests, slog.New(slog.DiscardHandler))
	set(s)
	go func() { r.ended <- s.Serve(ctx, r.pipes, nil) }()
	return r
}

// end stops the server and wants it to end well.
func (r *running) end(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("the server ended with %v", err)
	}
}

// closedAfter reads c to its end and says how long that took.
func closedAfter(c net.Conn) time.Duration {
	began := time.Now()
	_, _ = io.Copy(io.Discard, c)
	return time.Since(began)
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c net.Conn, path string) *http.Response {
	t.Helper()
	send(t, c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(strings.NewReader(string(b)))
	return resp
}

func TestSlowHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 0, nil)
		c := r.dial()
		send(t, c, "GET / HTTP/1.1\r\nHost: x\r\n")
		if took := closedAfter(c); took != readHeaderTimeout {
			t.Errorf("closed after %v, want %v", took, readHeaderTimeout)
		}
		r.end(t)
	})
}

func TestSlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := make(chan error, 1)
		r := start(t, 0, map[string]http.HandlerFunc{"/in": func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.ReadAll(r.Body)
			failed <- err
		}})
		c, began := r.dial(), time.Now()
		send(t, c, "POST /in HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
		go io.Copy(io.Discard, c)
		var e net.Error
		if err := <-failed; !errors.As(err, &e) || !e.Timeout() {
			t.Errorf("the body ended with %v", err)
		}
		if took := time.Since(began); took != readTimeout {
			t.Errorf("given up after %v, want %v", took, readTimeout)
		}
		c.Close()
		r.end(t)
	})
}

func TestSlowReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failed := make(chan error, 1)
		r := start(t, 0, map[string]http.HandlerFunc{"/out": func(w http.ResponseWriter, _ *http.Request) {
			_, err := w.Write(make([]byte, 1<<20))
			failed <- err
		}})
		c, began := r.dial(), time.Now()
		send(t, c, "GET /out HTTP/1.1\r\nHost: x\r\n\r\n")
		var e net.Error
		if err := <-failed; !errors.As(err, &e) || !e.Timeout() {
			t.Errorf("writing ended with %v", err)
		}
		if took := time.Since(began); took != writeTimeout {
			t.Errorf("given up after %v, want %v", took, writeTimeout)
		}
		c.Close()
		r.end(t)
	})
}

func TestIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 0, nil)
		c := r.dial()
		if resp := get(t, c, "/"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("%d", resp.StatusCode)
		}
		if took := closedAfter(c); took != idleTimeout {
			t.Errorf("closed after %v, want %v", took, idleTimeout)
		}
		r.end(t)
	})
}

func TestHugeHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 0, nil)
		c := r.dial()
		go io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nX-A: "+strings.Repeat("a", maxHeaderBytes+8192)+"\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("%v %v", resp, err)
		}
		c.Close()
		r.end(t)
	})
}

// Requests beyond the bound are told to come back at times that are spread; a slot
// is given back, also by a handler that panics.
func TestBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside, free := make(chan struct{}), make(chan struct{})
		r := start(t, 1, map[string]http.HandlerFunc{
			"/hold":  func(http.ResponseWriter, *http.Request) { close(inside); <-free },
			"/panic": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		})
		holder := r.dial()
		send(t, holder, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
		<-inside
		seen := map[int]bool{}
		c := r.dial()
		for range 200 {
			resp := get(t, c, "/")
			after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != http.StatusServiceUnavailable || err != nil || after < 5 || after > 30 || !strings.Contains(string(body), `"code":"busy"`) {
				t.Fatalf("%d, Retry-After %q, %s", resp.StatusCode, resp.Header.Get("Retry-After"), body)
			}
			seen[after] = true
		}
		if len(seen) < 10 {
			t.Errorf("200 answers name %d different times", len(seen))
		}
		close(free)
		synctest.Wait()
		holder.Close()
		bad := r.dial()
		send(t, bad, "GET /panic HTTP/1.1\r\nHost: x\r\n\r\n")
		closedAfter(bad)
		if resp := get(t, c, "/"); resp.StatusCode != http.StatusNotFound {
			t.Errorf("after all were served: %d", resp.StatusCode)
		}
		c.Close()
		r.end(t)
	})
}

func TestNoRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := start(t, 0, map[string]http.HandlerFunc{"POST /thing": func(http.ResponseWriter, *http.Request) {}})
		c := r.dial()
		for path, want := range map[string]string{"/thing": `{"error":"method not allowed","code":"method_not_allowed"}`, "/other": `{"error":"no such path","code":"not_found"}`} {
			resp := get(t, c, path)
			body, _ := io.ReadAll(resp.Body)
			if string(body) != want || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: %d %v %s", path, resp.StatusCode, resp.Header, body)
			}
			if path == "/thing" && (resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST") {
				t.Errorf("%s: %d %v", path, resp.StatusCode, resp.Header)
			}
		}
		c.Close()
		r.end(t)
	})
}

// A stop lets a request in progress finish, and waits for no other.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside, free := make(chan struct{}), make(chan struct{})
		r := start(t, 0, map[string]http.HandlerFunc{"/hold": func(w http.ResponseWriter, _ *http.Request) {
			close(inside)
			<-free
			io.WriteString(w, "done")
		}})
		c := r.dial()
		send(t, c, "GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
		<-inside
		r.stop()
		synctest.Wait()
		select {
		case err := <-r.ended:
			t.Fatalf("ended in mid-request: %v", err)
		default:
		}
		close(free)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); string(body) != "done" || err != nil {
			t.Errorf("%q %v", body, err)
		}
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		inside := make(chan struct{})
		r := start(t, 0, map[string]http.HandlerFunc{"/ever": func(_ http.ResponseWriter, r *http.Request) {
			close(inside)
			<-r.Context().Done()
		}})
		c := r.dial()
		send(t, c, "GET /ever HTTP/1.1\r\nHost: x\r\n\r\n")
		<-inside
		began := time.Now()
		r.stop()
		if err := <-r.ended; err != nil || time.Since(began) != drain {
			t.Errorf("ended after %v with %v, want %v", time.Since(began), err, drain)
		}
		c.Close()
	})
}
