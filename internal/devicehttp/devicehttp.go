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

	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// Bounds with their reasons.
const (
	// maxBody: a chunk of 16 KiB takes 22 KiB of JSON; a device stops reading
	// long before a body without end fills anything.
	maxBody         = 64 << 10
	maxRedirects    = 3
	defaultTimeout  = 30 * time.Second // for one request, its body included
	maxHeaderBytes  = 16 << 10
	idleConnTimeout = 90 * time.Second
)

// ErrTooLong: the answer's body is longer than any answer of the wire.
var ErrTooLong = errors.New("devicehttp: answer too long")

// Client speaks to one server.
type Client struct {
	base *url.URL
	http *http.Client
	// Timeout bounds one request with its body; 0 takes 30 s.
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
			Proxy: http.ProxyFromEnvironment,
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
			if req.URL.Host != u.Host {
				return errors.New("redirect to another host") // the signature is for this one
			}
			return nil
		},
	}
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Response is an answer being read.
type Response struct {
	Status     int
	RetryAfter time.Duration // 0: not said
	body       io.ReadCloser
	left       int
	cancel     context.CancelFunc
}

// Do sends the request and waits for the head of the answer. Close the Response.
func (c *Client) Do(ctx context.Context, r *v1.Request) (*Response, error) {
	timeout := c.Timeout
	if timeout == 0 {
		timeout = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	var body io.Reader
	if len(r.Body) > 0 {
		body = bytes.NewReader(bytes.Clone(r.Body)) // the buffer is the updater's
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, c.base.String()+string(r.Target), body)
	if err != nil {
		cancel()
		return nil, err
	}
	req.Header.Set("User-Agent", "runnel-board")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if r.DeviceID != "" {
		req.Header.Set("Device-ID", r.DeviceID)
	}
	if len(r.MAC) > 0 {
		req.Header.Set("X-Nonce", string(r.Nonce))
		req.Header.Set("X-Timestamp", string(r.Timestamp))
		req.Header.Set("X-MAC", string(r.MAC))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		cancel()
		return nil, err
	}
	return &Response{Status: resp.StatusCode, RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
		body: resp.Body, left: maxBody, cancel: cancel}, nil
}

// retryAfter reads seconds; a date is not worth a device's clock.
func retryAfter(s string) time.Duration {
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 || n > 86400 {
		return 0
	}
	return time.Duration(n) * time.Second
}

// Read fills buf with the next piece of the body; eof is true at its end.
func (r *Response) Read(buf []byte) (n int, eof bool, err error) {
	n, err = r.body.Read(buf)
	if r.left -= n; r.left < 0 {
		return 0, false, ErrTooLong
	}
	if errors.Is(err, io.EOF) {
		return n, true, nil
	}
	return n, false, err
}

// Close ends the answer. What is left of a short body is read, so that the
// connection serves the next request; a long one is cut.
func (r *Response) Close() error {
	_, err := io.CopyN(io.Discard, r.body, int64(max(r.left, 0)))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	err = errors.Join(err, r.body.Close())
	r.cancel()
	return err
}
