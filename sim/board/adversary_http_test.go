package board

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/devicehttp"
)

// The same through net/http, with servers, caches and proxies as there are.

// overHTTP is a board's network: the client that real virtual boards have.
type overHTTP struct{ c *devicehttp.Client }

func (o overHTTP) Do(ctx context.Context, r device.Request) (Answer, error) {
	a, err := o.c.Do(ctx, &r)
	if err != nil {
		return nil, err
	}
	return a, nil
}

// handler serves what nativeServer answers.
type handler struct {
	mu sync.Mutex
	s  *nativeServer
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<16))
	if err != nil {
		return
	}
	req := device.Request{Method: r.Method, Target: []byte(r.URL.RequestURI()), Body: body}
	if v, ok := strings.CutPrefix(r.Header.Get("Range"), "bytes="); ok {
		from, to, _ := strings.Cut(v, "-")
		a, err1 := strconv.ParseUint(from, 10, 32)
		b, err2 := strconv.ParseUint(to, 10, 32)
		if err1 == nil && err2 == nil {
			req.Ranged, req.From, req.To = true, uint32(a), uint32(b)
		}
	}
	ans, err := h.s.Do(r.Context(), req)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	a := ans.(*nativeAnswer)
	if a.head.Status == 206 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", a.head.From, a.head.To, a.head.Total))
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	w.WriteHeader(int(a.head.Status))
	if _, err := w.Write(a.body); err == nil && a.data {
		h.s.fetched += len(a.body)
	}
}

// onHTTP puts the board's server behind net/http; front, if any, is what stands
// before it. It counts accepted connections.
func (w *nativeWorld) onHTTP(front func(h http.Handler) http.Handler) (url string, conns *atomic.Int32) {
	w.t.Helper()
	var h http.Handler = &handler{s: w.s}
	if front != nil {
		h = front(h)
	}
	conns = new(atomic.Int32)
	s := httptest.NewUnstartedServer(h)
	s.Config.ConnState = func(_ net.Conn, st http.ConnState) {
		if st == http.StateNew {
			conns.Add(1)
		}
	}
	s.Start()
	c, err := devicehttp.New(s.URL)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		c.Close()
		s.Close()
	})
	w.via = overHTTP{c}
	return s.URL, conns
}

// One connection carries polls, key list, manifest, stream and reports, before the
// reset and after it.
func TestOneConnection(t *testing.T) {
	g := standard()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	b := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
	w.s.put(b)
	_, conns := w.onHTTP(nil)
	confirmed := false
	w.hours(1, boot.ResetPowerOn, w.watch(g, b), func(e device.Event) bool {
		confirmed = confirmed || e.Kind == device.EventConfirmed
		return confirmed && e.Kind == device.EventReported
	})
	w.targetIs(b.image)
	kinds := map[part]int{}
	for _, r := range w.s.requests {
		_, target, _ := strings.Cut(r, " ")
		kinds[partOf(device.Request{Target: []byte(target)})]++
	}
	if n := conns.Load(); n != 1 || len(kinds) != len(parts) {
		t.Errorf("%d connections for %v", n, kinds)
	}
	if w.s.fetched != len(b.stream) {
		t.Errorf("%d bytes fetched of %d", w.s.fetched, len(b.stream))
	}
}

// hostile is what stands between a board and its server.
type hostile struct {
	name string
	on   part
	// serve answers in place of the server, or hands on to next.
	serve func(w http.ResponseWriter, r *http.Request, next http.Handler)
	gets  bool // the board gets its release all the same
}

// changed hands on to next, with some headers of the answer changed.
func changed(w http.ResponseWriter, r *http.Request, next http.Handler, status int, f func(h http.Header)) {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	f(w.Header())
	if status == 0 {
		status = rec.Code
	}
	w.WriteHeader(status)
	_, _ = w.Write(rec.Body.Bytes()) // a client that has enough hangs up
}

// raw answers with these bytes and hangs up, with a reset where reset is set.
func raw(w http.ResponseWriter, reset bool, parts ...string) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	for _, p := range parts {
		_, _ = io.WriteString(c, p) // the other end may be gone
	}
	if tcp, ok := c.(*net.TCPConn); ok && reset {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func hostiles(elsewhere string) []hostile {
	whole := func(r *http.Request) *http.Request {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		return r
	}
	list := []hostile{
		{name: "ignores Range", on: partStream, gets: true, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			next.ServeHTTP(w, whole(r))
		}},
		{name: "416 for every Range", on: partStream, gets: true, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if r.Header.Get("Range") != "" {
				http.Error(w, "", http.StatusRequestedRangeNotSatisfiable)
				return
			}
			next.ServeHTTP(w, r)
		}},
		{name: "says gzip", serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			changed(w, r, next, 0, func(h http.Header) { h.Set("Content-Encoding", "gzip") })
		}},
		{name: "says identity", gets: true, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			changed(w, r, next, 0, func(h http.Header) { h.Set("Content-Encoding", "identity") })
		}},
		{name: "206 without Content-Range", on: partStream, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			changed(w, r, next, 206, func(h http.Header) { h.Del("Content-Range") })
		}},
		{name: "206 for another part", on: partStream, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			changed(w, r, next, 206, func(h http.Header) { h.Set("Content-Range", "bytes 1-2/3") })
		}},
		{name: "206 of unknown length", on: partStream, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			changed(w, r, next, 206, func(h http.Header) { h.Set("Content-Range", "bytes 0-100/*") })
		}},
		{name: "multipart/byteranges", on: partStream, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			changed(w, r, next, 206, func(h http.Header) {
				h.Del("Content-Range")
				h.Set("Content-Type", "multipart/byteranges; boundary=x")
			})
		}},
		{name: "a redirect to another path", on: partStream, gets: true, serve: hop(1, "")},
		{name: "three redirects to another host", on: partStream, gets: true, serve: hop(3, elsewhere)},
		{name: "a redirect of manifests to another host", on: partManifest, gets: true, serve: hop(1, elsewhere)},
		{name: "four redirects", on: partStream, serve: hop(4, "")},
		{name: "a redirect loop", serve: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			http.Redirect(w, r, r.URL.RequestURI(), http.StatusFound)
		}},
		{name: "polls redirected to the same host", on: partPoll, serve: hop(1, "")},
		{name: "polls redirected to another host", on: partPoll, serve: hop(1, elsewhere)},
		{name: "captive portal", serve: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write(portal)
		}},
		{name: "captive portal by redirect", serve: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			if strings.HasPrefix(r.URL.Path, "/login") {
				_, _ = w.Write(portal)
				return
			}
			http.Redirect(w, r, "/login?from="+r.URL.Path, http.StatusFound)
		}},
		{name: "headers without end", serve: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			line := "X-Flood: " + strings.Repeat("x", 1000) + "\r\n"
			raw(w, false, "HTTP/1.1 200 OK\r\n", strings.Repeat(line, 100))
		}},
		{name: "one header line without end", serve: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			raw(w, false, "HTTP/1.1 200 OK\r\nX-Flood: ", strings.Repeat("x", 100_000))
		}},
		{name: "interim answers without end", serve: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			raw(w, false, strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", 2000))
		}},
		{name: "no HTTP", serve: func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
			raw(w, false, "220 mail.example ESMTP\r\n")
		}},
		{name: "a body without end", serve: func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			for r.Context().Err() == nil {
				if _, err := w.Write(portal); err != nil {
					return
				}
			}
		}},
		{name: "the right part, then a body without end", on: partStream, gets: true, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			changed(w, r, next, 0, func(h http.Header) { h.Del("Content-Length") })
			for r.Context().Err() == nil {
				if _, err := w.Write(portal); err != nil {
					return
				}
			}
		}},
		{name: "HTTP/1.0 without keep-alive", gets: true, serve: func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := httptest.NewRecorder()
			next.ServeHTTP(rec, r)
			head := fmt.Sprintf("HTTP/1.0 %d OK\r\n", rec.Code)
			if v := rec.Header().Get("Content-Range"); v != "" {
				head += "Content-Range: " + v + "\r\n"
			}
			raw(w, false, head+"\r\n", rec.Body.String())
		}},
		{name: "resets in mid-record", on: partStream, gets: true, serve: resets(2500)},
		{name: "resets in the first record", on: partStream, serve: resets(900)},
		{name: "resets right behind the head", serve: resets(0)},
	}
	return list
}

// hop redirects so often, then hands on.
func hop(times int, host string) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		n, path := 0, r.URL.RequestURI()
		if rest, ok := strings.CutPrefix(path, "/hop/"); ok {
			number, target, _ := strings.Cut(rest, "/")
			n, _ = strconv.Atoi(number)
			path = "/" + target
		}
		if n < times {
			http.Redirect(w, r, fmt.Sprintf("%s/hop/%d%s", host, n+1, path), http.StatusTemporaryRedirect)
			return
		}
		r = r.Clone(r.Context())
		r.URL.Path, r.URL.RawQuery, _ = strings.Cut(path, "?")
		next.ServeHTTP(w, r)
	}
}

// resets breaks each answer off after so many bytes of its body.
func resets(after int) func(http.ResponseWriter, *http.Request, http.Handler) {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		head := fmt.Sprintf("HTTP/1.1 %d OK\r\nContent-Length: %d\r\n", rec.Code, rec.Body.Len())
		if v := rec.Header().Get("Content-Range"); v != "" {
			head += "Content-Range: " + v + "\r\n"
		}
		body := rec.Body.String()
		// A FIN, not a reset: what was sent before a reset may be lost with it, and then
		// the test would depend on who is faster.
		raw(w, after == 0, head+"\r\n", body[:min(after, len(body))])
	}
}

// Every hostile server, cache and proxy: no wrong byte, bounds that hold, and the
// right image at once or when it is gone.
func TestHostileHTTP(t *testing.T) {
	// Whoever else there is answers everything as the same server would.
	var behind atomic.Pointer[http.Handler]
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*behind.Load()).ServeHTTP(w, r) }))
	t.Cleanup(other.Close)
	ran := 0
	for _, h := range hostiles(other.URL) {
		ran++
		t.Run(h.name, func(t *testing.T) {
			g := standard()
			g.imgSize = 70 << 10 // more than any body that is not a stream may have
			w := newNativeWorld(t, g, image(t, 8192, "A", BehaveOK))
			b := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
			w.s.put(b)
			var on atomic.Bool
			var tried atomic.Int32
			on.Store(true)
			_, conns := w.onHTTP(func(next http.Handler) http.Handler {
				var front http.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					path := r.URL.Path
					if rest, ok := strings.CutPrefix(path, "/hop/"); ok {
						_, path, _ = strings.Cut(rest, "/")
						path = "/" + path
					}
					if on.Load() && (h.on == "" || strings.HasPrefix(path, "/login") || partOf(device.Request{Target: []byte(path)}) == h.on) {
						tried.Add(1)
						h.serve(w, r, next)
						return
					}
					next.ServeHTTP(w, r)
				})
				behind.Store(&front)
				return front
			})
			o := w.watch(g, b)
			start := w.clock.Now
			w.hours(2, boot.ResetPowerOn, o, at(device.EventConfirmed))
			_, confirmed := w.saw(device.EventConfirmed, 0)
			reasons, unreachable := w.reasons()
			switch {
			case tried.Load() == 0:
				t.Fatal("nothing was attacked")
			case h.gets != confirmed:
				t.Fatalf("confirmed %v; it said %v, unreachable %v", confirmed, reasons, unreachable)
			case !h.gets && len(reasons) == 0 && !unreachable:
				t.Error("nothing was said")
			}
			if n := tried.Load(); n > 900 || conns.Load() > 900 || o.worn() > 24 {
				t.Errorf("%d answers changed, %d connections, a sector erased %d times in %d s", n, conns.Load(), o.worn(), (w.clock.Now-start)/1000)
			}
			on.Store(false)
			if !confirmed {
				w.hours(healHours, boot.ResetUnknown, o, at(device.EventConfirmed))
			}
			w.targetIs(b.image)
		})
	}
	if ran < 25 {
		t.Errorf("only %d hostile servers", ran)
	}
}

// A cache that is poisoned, which the server sends streams to: after two bad
// records around the cache, then the origin itself, then a failure that names the
// record.
func TestPoisonedCache(t *testing.T) {
	for _, c := range []struct {
		name          string
		keyed, origin bool // fresh=N goes around the cache; the origin's own file is good
		asks          []string
	}{
		{"one entry of it", true, true, []string{"", "", "fresh"}},
		{"all of it", false, true, []string{"", "", "fresh", "fresh", "origin"}},
		{"and the origin too", false, false, []string{"", "", "fresh", "fresh", "origin", "origin"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, g, b, _ := adversaryWorld(t)
			var origin http.Handler
			var asks []string
			var mu sync.Mutex
			poison := func(w http.ResponseWriter, r *http.Request) {
				rec := httptest.NewRecorder()
				origin.ServeHTTP(rec, r)
				body := rec.Body.Bytes()
				if len(body) > 0 {
					body[0] ^= 1 // of the record that is asked for, whichever it is
				}
				w.Header().Set("Content-Range", rec.Header().Get("Content-Range"))
				w.WriteHeader(rec.Code)
				_, _ = w.Write(body) // a client that has enough hangs up
			}
			cdn := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if c.keyed && r.URL.Query().Has("fresh") {
					origin.ServeHTTP(w, r)
					return
				}
				poison(w, r)
			}))
			t.Cleanup(cdn.Close)
			w.onHTTP(func(h http.Handler) http.Handler {
				origin = h
				return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
					if !strings.HasPrefix(r.URL.Path, "/r1/streams/") {
						h.ServeHTTP(rw, r)
						return
					}
					q, ask := r.URL.Query(), ""
					switch {
					case q.Get("origin") == "1":
						ask = "origin"
					case q.Has("fresh"):
						ask = "fresh"
					}
					mu.Lock()
					asks = append(asks, ask)
					mu.Unlock()
					switch {
					case ask != "origin":
						http.Redirect(rw, r, cdn.URL+r.URL.RequestURI(), http.StatusFound)
					case c.origin:
						h.ServeHTTP(rw, r)
					default:
						poison(rw, r)
					}
				})
			})
			failed := func(e device.Event) bool {
				return e.Kind == device.EventConfirmed || e.Kind == device.EventFailed
			}
			w.hours(2, boot.ResetPowerOn, w.watch(g, b), failed)
			_, confirmed := w.saw(device.EventConfirmed, 0)
			_, named := w.saw(device.EventFailed, device.ReasonRecord)
			if good := c.keyed || c.origin; confirmed != good || named == good {
				t.Fatalf("confirmed %v, failed for a record %v", confirmed, named)
			}
			mu.Lock()
			defer mu.Unlock()
			if got := strings.Join(asks[:min(len(asks), len(c.asks))], ","); got != strings.Join(c.asks, ",") {
				t.Errorf("it asked %v", asks)
			}
		})
	}
}
