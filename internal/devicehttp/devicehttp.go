// Package devicehttp carries the device's side of a wire over net/http, for
// virtual boards and bridges. It bounds what a server may do to a device: time,
// redirects, the length of an answer; what arrives is handed on in pieces and
// never kept.
package devicehttp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/core/device"
)

// Bounds with their reasons.
const (
	// maxBody: a chunk of 16 KiB takes 22 KiB of JSON; a device stops reading
	// long before a body without end fills anything. A ranged answer has what was
	// asked for at most.
	maxBody         = 64 << 10
	maxRedirects    = 3
	defaultTimeout  = 30 * time.Second // until the head is there, and between two pieces of the body
	slowestRate     = 512              // bytes a second: a body that drips slower than that is given up
	maxHeaderBytes  = 16 << 10
	idleConnTimeout = 90 * time.Second
)

// ErrTooLong: the answer's body is longer than any answer of the wire.
var ErrTooLong = errors.New("devicehttp: answer too long")

// Client speaks to one server.
type Client struct {
	base    *url.URL
	http    *http.Client
	traffic traffic
	// Timeout bounds the wait for the head of an answer, and for each piece of its
	// body; 0 takes 30 s.
	Timeout time.Duration
}

// New takes the server's URL, e.g. http://127.0.0.1:8080.
func New(base string) (*Client, error) {
	u, err := url.Parse(strings.TrimRight(base, "/"))
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, fmt.Errorf("%q is not a server's URL, such as http://127.0.0.1:8080", base)
	}
	c := &Client{base: u}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy:       http.ProxyFromEnvironment,
			DialContext: c.traffic.dial,
			// A device decodes nothing: what comes is what was sent.
			DisableCompression:     true,
			MaxIdleConnsPerHost:    1,
			IdleConnTimeout:        idleConnTimeout,
			MaxResponseHeaderBytes: maxHeaderBytes,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return errors.New("too many redirects")
			}
			return mayFollow(req, via[0])
		},
	}
	return c, nil
}

// mayFollow says where a request may be sent on to.
func mayFollow(next, first *http.Request) error {
	switch {
	case first.Method != http.MethodGet:
		return errors.New("redirect of a message") // it is for the server that the device knows
	case first.URL.Scheme == "https" && next.URL.Scheme != "https":
		return errors.New("redirect out of TLS")
	case next.URL.Host != first.URL.Host && first.Header.Get("Device-ID") != "":
		// The request says who the device is. One for a stream or an object does not,
		// and what comes is proven by its hash: a CDN may have it.
		return errors.New("redirect to another host")
	}
	return nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Response is an answer being read.
type Response struct {
	head   device.Head
	body   io.ReadCloser
	left   int64       // bytes that it may still have
	idle   *time.Timer // cancels the request
	wait   time.Duration
	cancel context.CancelFunc
}

// Do sends the request and waits for the head of the answer. Close the Response.
func (c *Client) Do(ctx context.Context, r *device.Request) (*Response, error) {
	wait := c.Timeout
	if wait == 0 {
		wait = defaultTimeout
	}
	limit := int64(maxBody)
	if r.Ranged || r.To > 0 {
		limit = int64(r.To) - int64(r.From) + 1
	}
	ctx, cancel := context.WithTimeout(ctx, wait+time.Duration(limit/slowestRate)*time.Second)
	idle := time.AfterFunc(wait, cancel)
	resp, err := c.send(ctx, r)
	idle.Stop()
	if err != nil {
		cancel()
		return nil, err
	}
	return &Response{head: headOf(resp), body: resp.Body, left: limit, idle: idle, wait: wait, cancel: cancel}, nil
}

func (c *Client) send(ctx context.Context, r *device.Request) (*http.Response, error) {
	var body io.Reader
	if len(r.Body) > 0 {
		body = bytes.NewReader(bytes.Clone(r.Body)) // the buffer is the updater's
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, c.base.String()+string(r.Target), body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "runnel-board")
	if body != nil {
		req.Header.Set("Content-Type", contentType(r))
	}
	if r.Ranged {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.From, r.To))
	}
	if r.DeviceID != "" {
		req.Header.Set("Device-ID", r.DeviceID)
	}
	if len(r.MAC) > 0 {
		req.Header.Set("X-Nonce", string(r.Nonce))
		req.Header.Set("X-Timestamp", string(r.Timestamp))
		req.Header.Set("X-MAC", string(r.MAC))
	}
	return c.http.Do(req)
}

// contentType: v1 says JSON and its device's name; the native wire's bodies are CBOR
// with a MAC, and say who speaks themselves.
func contentType(r *device.Request) string {
	if len(r.Body) > 0 && r.Body[0] == '{' {
		return "application/json"
	}
	return "application/octet-stream"
}

// headOf leaves a Content-Range that can't be read, or that is not there, at 0: what
// that means is the device's to say.
func headOf(resp *http.Response) device.Head {
	h := device.Head{Status: uint16(resp.StatusCode), RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
	coding := resp.Header.Get("Content-Encoding")
	h.Coded = coding != "" && coding != "identity"
	if resp.StatusCode == http.StatusPartialContent {
		h.From, h.To, h.Total = contentRange(resp.Header.Get("Content-Range"))
	}
	return h
}

// contentRange reads "bytes 0-99/1000" of numbers below 2^32; zeros for anything else.
func contentRange(s string) (from, to, total uint32) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return 0, 0, 0
	}
	span, all, ok := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return 0, 0, 0
	}
	var n [3]uint32
	for i, text := range []string{first, last, all} {
		v, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return 0, 0, 0
		}
		n[i] = uint32(v)
	}
	if n[0] > n[1] || n[1] >= n[2] {
		return 0, 0, 0
	}
	return n[0], n[1], n[2]
}

// retryAfter reads seconds; a date is not worth a device's clock.
func retryAfter(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n > 86400 {
		return 0
	}
	return uint32(n)
}

// Head is what the answer says before its body.
func (r *Response) Head() device.Head { return r.head }

// Read fills buf with the next piece of the body; eof is true at its end.
func (r *Response) Read(buf []byte) (n int, eof bool, err error) {
	r.idle.Reset(r.wait)
	n, err = r.body.Read(buf)
	r.idle.Stop()
	if r.left -= int64(n); r.left < 0 {
		return 0, false, ErrTooLong
	}
	if errors.Is(err, io.EOF) {
		return n, true, nil
	}
	return n, false, err
}

// Close ends the answer. What is left of a short body is read, so that the
// connection serves the next request; of a long one nothing is, and its connection
// ends: a device that turns away from a stream does not fetch the rest of it.
func (r *Response) Close() error {
	defer r.cancel()
	if r.left > maxBody {
		r.cancel()
		return r.body.Close()
	}
	r.idle.Reset(r.wait)
	_, err := io.CopyN(io.Discard, r.body, max(r.left, 0))
	r.idle.Stop()
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, r.body.Close())
}
