package devicehttp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnel-fota/runnel/core/device"
)

// dripping is a client whose server is the function, over a pipe: in a bubble of
// synctest no time passes but what is waited for. It reads the request's head first.
func dripping(t *testing.T, serve func(c net.Conn)) *Client {
	t.Helper()
	c, err := New("http://device.test")
	if err != nil {
		t.Fatal(err)
	}
	c.http.Transport.(*http.Transport).Proxy = nil
	c.http.Transport.(*http.Transport).DialContext = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() {
			defer far.Close()
			if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
				serve(far)
			}
		}()
		return near, nil
	}
	return c
}

// drip writes s a byte at a time, each after so long, until the other end is gone.
func drip(c net.Conn, s string, every time.Duration) {
	for i := range len(s) {
		<-time.After(every)
		if _, err := io.WriteString(c, s[i:i+1]); err != nil {
			return
		}
	}
}

// gone lets a server notice, so that nothing of a bubble is left.
func gone(c *Client) {
	c.Close()
	<-time.After(time.Hour)
	synctest.Wait()
}

// A server that is slow on purpose ends within bounds, wherever it is slow.
func TestSlowServers(t *testing.T) {
	const head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9999/100000\r\nContent-Length: 10000\r\n\r\n"
	long := strings.Repeat("x", 10000)
	for _, c := range []struct {
		name  string
		serve func(c net.Conn)
		most  time.Duration
		read  int // bytes that come at least
	}{
		{"no head", func(c net.Conn) { _, _ = c.Read(make([]byte, 1)) }, defaultTimeout, 0},
		{"a head that drips", func(c net.Conn) { drip(c, "HTTP/1.1 200 OK\r\nX-Slow: "+long, 10*time.Second) }, defaultTimeout, 0},
		{"interim answers that drip", func(c net.Conn) {
			for range 1000 {
				drip(c, "HTTP/1.1 103 Early Hints\r\n\r\n", time.Second)
			}
		}, defaultTimeout, 0},
		{"a body that stops", func(c net.Conn) {
			fmt.Fprint(c, head, "xyz")
			_, _ = c.Read(make([]byte, 1))
		}, defaultTimeout, 3},
		{"a body that drips", func(c net.Conn) {
			fmt.Fprint(c, head)
			drip(c, long, 20*time.Second)
		}, defaultTimeout + 10000/slowestRate*time.Second, 1},
		{"a chunked body that drips", func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9999/100000\r\nTransfer-Encoding: chunked\r\n\r\n")
			drip(c, strings.Repeat("1\r\nx\r\n", 10000), 5*time.Second)
		}, defaultTimeout + 10000/slowestRate*time.Second, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := dripping(t, c.serve)
				defer gone(client)
				start := time.Now()
				n, err := fetch(t.Context(), client)
				if err == nil {
					t.Error("it ended well")
				}
				if took := time.Since(start); took > c.most+time.Second || n < c.read {
					t.Errorf("%d bytes in %v, at most %v are allowed", n, took, c.most)
				}
			})
		})
	}
}

// fetch reads 10,000 bytes of a stream.
func fetch(ctx context.Context, c *Client) (n int, err error) {
	r, err := c.Do(ctx, &device.Request{Method: "GET", Target: []byte("/r1/streams/x"), Ranged: true, To: 9999})
	if err != nil {
		return 0, err
	}
	for {
		m, eof, err := r.Read(make([]byte, 512))
		n += m
		if err != nil || eof {
			return n, errors.Join(err, r.Close())
		}
	}
}

// A body that nobody wants any more and that drips doesn't hold its reader up.
func TestCloseOfASlowBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := dripping(t, func(c net.Conn) {
			fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\nx")
			drip(c, strings.Repeat("x", 60000), 10*time.Second)
		})
		defer gone(client)
		r, err := client.Do(t.Context(), &device.Request{Method: "GET", Target: []byte("/")})
		if err != nil {
			t.Fatal(err)
		}
		if n, _, err := r.Read(make([]byte, 10)); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		start := time.Now()
		_ = r.Close() // what is wrong with a body that was let go is of no interest
		if took := time.Since(start); took > defaultTimeout {
			t.Errorf("it took %v", took)
		}
	})
}

// Where requests may be sent on to: messages nowhere, what names a device to its own
// server, streams and objects anywhere but out of TLS.
func TestMayFollow(t *testing.T) {
	request := func(method, url string, id bool) *http.Request {
		r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if id {
			r.Header.Set("Device-ID", "d")
		}
		return r
	}
	for _, c := range []struct {
		first *http.Request
		next  string
		ok    bool
	}{
		{request("POST", "http://a/r1/poll", false), "http://a/r1/poll2", false},
		{request("POST", "http://a/r1/poll", false), "http://b/", false},
		{request("GET", "http://a/x", true), "http://a/y", true},
		{request("GET", "http://a/x", true), "http://b/x", false},
		{request("GET", "http://a/x", true), "http://a:81/x", false},
		{request("GET", "http://a/r1/streams/1", false), "http://b/1", true},
		{request("GET", "https://a/r1/streams/1", false), "https://b/1", true},
		{request("GET", "https://a/r1/streams/1", false), "http://b/1", false},
		{request("GET", "http://a/r1/streams/1", false), "https://b/1", true},
	} {
		if err := mayFollow(request("GET", c.next, false), c.first); (err == nil) != c.ok {
			t.Errorf("%s %s to %s: %v", c.first.Method, c.first.URL, c.next, err)
		}
	}
}

// A Content-Range that is none of ours is the device's to judge: it hears zeros.
func TestContentRange(t *testing.T) {
	for s, want := range map[string][3]uint32{
		"bytes 0-99/1000": {0, 99, 1000}, "bytes 5-5/6": {5, 5, 6}, "": {}, "bytes 0-99/*": {}, "bytes */1000": {}, "bytes 9-5/10": {},
		"bytes 0-10/10": {}, "bytes=0-99/1000": {}, "bytes 0-99": {}, "bytes -1-5/10": {}, "bytes 0-4294967295/4294967296": {}, "items 0-1/2": {},
		"bytes  0-99/1000": {}, "bytes 0-99/1000,": {}, "bytes 00-99/1000x": {},
	} {
		if a, b, n := contentRange(s); [3]uint32{a, b, n} != want {
			t.Errorf("%q: %d-%d/%d", s, a, b, n)
		}
	}
}
