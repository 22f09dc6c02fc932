package httpserver

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const keptTarget = "/kept?n=1"

// keptRoutes: /kept says what it was asked and by whom it is served, /other the same.
func keptRoutes() map[string]http.HandlerFunc {
	tell := func(w http.ResponseWriter, r *http.Request) {
		_, kept := w.(*answer)
		w.Header().Set("X-Kept", fmt.Sprint(kept))
		w.Header()["X-Names"] = []string{r.Header.Get("Device-Id"), fmt.Sprint(len(r.Header))}
		if r.URL.Query().Get("status") != "" {
			w.WriteHeader(http.StatusTeapot)
		}
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %v", r.Method, r.URL.RequestURI(), r.Host, b, err)
	}
	return map[string]http.HandlerFunc{"/kept": tell, "/other": tell}
}

func startKept(t *testing.T, maxRequests int, routes map[string]http.HandlerFunc) *running {
	return startWith(t, maxRequests, routes, func(s *Server) { s.Keep("/kept") })
}

// talk is a connection with what was read of it ahead.
type talk struct {
	net.Conn
	in *bufio.Reader
}

func (r *running) talk() *talk {
	c := r.dial()
	return &talk{c, bufio.NewReader(c)}
}

// ask sends text and reads one answer; an error is told as its text.
func (c *talk) ask(text string) (status int, header http.Header, body string) {
	go io.WriteString(c, text)
	return c.answer()
}

func (c *talk) answer() (status int, header http.Header, body string) {
	resp, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, nil, err.Error()
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil, err.Error()
	}
	resp.Header.Set("Closes", fmt.Sprint(resp.Close))
	return resp.StatusCode, resp.Header, string(b)
}

func plain(target string) string { return "GET " + target + " HTTP/1.1\r\nHost: x\r\n\r\n" }

// warm has the connection kept.
func (c *talk) warm(t *testing.T) {
	t.Helper()
	if _, h, body := c.ask(plain(keptTarget)); h.Get("X-Kept") != "true" {
		t.Fatalf("%v %s", h, body)
	}
}

// Requests of a kept connection get the same answers as of any other, whether they are kept, go
// back, or were sent before the last was answered.
func TestKeptAnswers(t *testing.T) {
	big := strings.Repeat("a", keptHead)
	for name, text := range map[string]string{
		"plain":          plain("/kept?n=2"),
		"headers":        "GET /kept?chunk_number=17 HTTP/1.1\r\nHost: x:80\r\ndevice-id: d-1\r\nX-MAC:  ab \r\nAccept: */*\r\nConnection: Keep-Alive\r\n\r\n",
		"twice":          "GET /kept?n=2 HTTP/1.1\r\nHost: x\r\nDevice-Id: a\r\nX-Other: c\r\nDevice-Id: b\r\n\r\n",
		"status":         plain("/kept?status=1"),
		"no query":       plain("/kept"),
		"escapes":        plain("/kept?n=%31"),
		"escaped path":   plain("/%6bept?n=1"),
		"absolute":       plain("http://x/kept?n=1"),
		"other path":     plain("/other?n=1"),
		"no path":        plain("/none"),
		"POST":           "POST /kept?n=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
		"GET with body":  "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc",
		"chunked":        "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"both lengths":   "POST /kept?n=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"expect":         "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nExpect: something\r\n\r\n",
		"close":          "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"1.0":            "GET /kept?n=1 HTTP/1.0\r\nHost: x\r\n\r\n",
		"long":           "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nX-A: " + big + "\r\n\r\n",
		"many":           "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X-A: b\r\n", maxHeadFields+1) + "\r\n",
		"no host":        "GET /kept?n=1 HTTP/1.1\r\n\r\n",
		"two hosts":      "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"strange host":   "GET /kept?n=1 HTTP/1.1\r\nHost: x/y\r\n\r\n",
		"bare LF":        "GET /kept?n=1 HTTP/1.1\nHost: x\n\nGET /kept?n=2 HTTP/1.1\r\nHost: x\r\n\r\n",
		"folded":         "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nX-A: b\r\n c\r\n\r\n",
		"space in name":  "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc",
		"letters beyond": "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nX-A: \xe9\r\n\r\n",
		"nonsense":       "hello\r\n\r\n",
		"no colon":       "GET /kept?n=1 HTTP/1.1\r\nHost: x\r\nX-A\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k, n := startKept(t, 0, keptRoutes()), start(t, 0, keptRoutes())
				one, other := k.talk(), n.talk()
				one.warm(t)
				other.ask(plain(keptTarget))
				// The second time another request is behind it on its heels.
				for i, more := range []string{"", plain("/kept?n=3"), plain("/other?n=3")} {
					s1, h1, b1 := one.ask(text + more)
					s2, h2, b2 := other.ask(text + more)
					h1.Del("X-Kept")
					h2.Del("X-Kept")
					if s1 != s2 || b1 != b2 || fmt.Sprint(h1) != fmt.Sprint(h2) {
						t.Fatalf("try %d: %d %v %s\nnot %d %v %s", i, s1, h1, b1, s2, h2, b2)
					}
					if name == "plain" && s1 != http.StatusOK {
						t.Fatal(s1, b1)
					}
					if more == "" {
						continue
					}
					s1, _, b1 = one.answer()
					s2, _, b2 = other.answer()
					if s1 != s2 || b1 != b2 {
						t.Fatalf("behind try %d: %d %s\nnot %d %s", i, s1, b1, s2, b2)
					}
				}
				one.Close()
				other.Close()
				k.end(t)
				n.end(t)
			})
		})
	}
}

// Which requests are kept: the first on a connection, those like it, and again those
// behind one that was not.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startKept(t, 0, keptRoutes())
		c := r.talk()
		for i, q := range []struct {
			target string
			kept   string
		}{{"/other?n=1", "false"}, {"/kept?n=1", "true"}, {"/kept?n=2", "true"}, {"/other?n=2", "false"}, {"/kept", "true"}, {"/kept?n=%32", "true"}, {"/kept?n=3", "true"}, {"/kept?n=4", "true"}} {
			status, h, body := c.ask(plain(q.target))
			if want := "GET " + q.target + ` x "" <nil>`; status != http.StatusOK || body != want || h.Get("X-Kept") != q.kept || h.Get("Date") == "" || h.Get("Content-Type") != "text/plain; charset=utf-8" {
				t.Errorf("%d: %d %v %s", i, status, h, body)
			}
		}
		c.Close()
		r.end(t)
	})
}

func TestKeptTimes(t *testing.T) {
	for name, c := range map[string]struct {
		text string
		want time.Duration
	}{"idle": {"", idleTimeout}, "slow head": {"GET /kept?n=1 HTTP/1.1\r\nHost: x\r\n", readHeaderTimeout}} {
		synctest.Test(t, func(t *testing.T) {
			r := startKept(t, 0, keptRoutes())
			k := r.talk()
			k.warm(t)
			if c.text != "" {
				// One that came slowly, but in time, is served, and the next may again take as long.
				send(t, k, c.text)
				<-time.After(readHeaderTimeout / 2)
				if status, _, body := k.ask("\r\n"); status != http.StatusOK {
					t.Errorf("%s: %d %s", name, status, body)
				}
				<-time.After(readHeaderTimeout * 2)
				send(t, k, c.text)
			}
			if took := closedAfter(k); took > c.want || took < c.want-keptStep {
				t.Errorf("%s: closed after %v, want %v", name, took, c.want)
			}
			r.end(t)
		})
	}
	// A reader that is too slow.
	synctest.Test(t, func(t *testing.T) {
		r := startKept(t, 0, keptRoutes())
		k := r.talk()
		k.warm(t)
		send(t, k, plain(keptTarget))
		<-time.After(writeTimeout + time.Second) // of the bubble
		if status, _, body := k.answer(); status != 0 {
			t.Errorf("%d %s", status, body)
		}
		r.end(t)
	})
}

// Kept requests count among those at once, and one that panics ends its connection alone.
func TestKeptBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside, free := make(chan struct{}), make(chan struct{})
		routes := keptRoutes()
		routes["/hold"] = func(http.ResponseWriter, *http.Request) { close(inside); <-free }
		tell := routes["/kept"]
		routes["/kept"] = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery == "n=panic" {
				panic("as asked")
			}
			tell(w, r)
		}
		r := startKept(t, 1, routes)
		c, bad := r.talk(), r.talk()
		c.warm(t)
		bad.warm(t)
		if status, _, _ := bad.ask(plain("/kept?n=panic")); status != 0 {
			t.Error("it was answered")
		}
		holder := r.dial()
		send(t, holder, plain("/hold"))
		<-inside
		if status, h, body := c.ask(plain(keptTarget)); status != http.StatusServiceUnavailable || h.Get("Retry-After") == "" || !strings.Contains(body, `"code":"busy"`) {
			t.Errorf("%d %v %s", status, h, body)
		}
		close(free)
		synctest.Wait()
		if status, _, _ := c.ask(plain(keptTarget)); status != http.StatusOK {
			t.Error(status)
		}
		holder.Close()
		c.Close()
		r.end(t)
	})
}

// holding has the answer to /kept?n=hold say that it is asked for, and wait.
func holding(inside, free chan struct{}) map[string]http.HandlerFunc {
	routes := keptRoutes()
	tell := routes["/kept"]
	routes["/kept"] = func(w http.ResponseWriter, r *http.Request) {
		if r.URL.RawQuery == "n=hold" {
			close(inside)
			<-free
		}
		tell(w, r)
	}
	return routes
}

// A stop ends kept connections that wait, lets an answer in progress go out as the
// last of its connection, and cuts what takes too long.
func TestKeptStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inside, free := make(chan struct{}), make(chan struct{})
		r := startKept(t, 0, holding(inside, free))
		idle, busy := r.talk(), r.talk()
		idle.warm(t)
		busy.warm(t)
		send(t, busy, plain("/kept?n=hold")+plain("/kept?n=9"))
		<-inside
		r.stop()
		if took := closedAfter(idle); took != 0 {
			t.Errorf("an idle one ended after %v", took)
		}
		synctest.Wait()
		select {
		case err := <-r.ended:
			t.Fatalf("ended in mid-request: %v", err)
		default:
		}
		close(free)
		if status, h, _ := busy.answer(); status != http.StatusOK || h.Get("Closes") != "true" {
			t.Errorf("%d %v", status, h)
		}
		if status, _, body := busy.answer(); status != 0 {
			t.Errorf("one more was answered: %s", body)
		}
		if err := <-r.ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		inside := make(chan struct{})
		ever := make(chan struct{})
		r := startKept(t, 0, holding(inside, ever))
		c := r.talk()
		c.warm(t)
		send(t, c, plain("/kept?n=hold"))
		<-inside
		began := time.Now()
		r.stop()
		if err := <-r.ended; err != nil || time.Since(began) != drain {
			t.Errorf("ended after %v with %v, want %v", time.Since(began), err, drain)
		}
		close(ever)
		if status, _, body := c.answer(); status != 0 {
			t.Errorf("%d %s", status, body)
		}
	})
}
