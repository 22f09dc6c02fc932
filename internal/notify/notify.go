// Package notify tells an operator's web hook what somebody should look at: a POST
// of JSON, signed where there is a secret, tried again with back-off, from a bounded
// queue that never holds up who fills it. It imports the domain alone.
//
// The queue is in memory: what is in it when the server crashes is never told. The
// event stays in the server's log (runnel logs). docs/operations.md has the contract.
package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	// Queue is how many notices wait at most; what comes then is dropped, and logged.
	Queue = 64
	// Tries of one notice, with 1 s, 2 s, 4 s ... between them, maxWait at most: some eight
	// minutes in all, which is longer than most services take to restart.
	Tries   = 10
	maxWait = 10 * time.Minute

	timeout   = 10 * time.Second // of one try
	stopLimit = 5 * time.Second  // for what is left when the server stops
	maxAnswer = 64 << 10         // bytes of an answer that are read, so that the connection can be kept
	// MinSecret is what a secret has at least, bytes.
	MinSecret = 16
)

// Headers of a notification.
const (
	HeaderEvent     = "Runnel-Event"
	HeaderDelivery  = "Runnel-Delivery"
	HeaderSignature = "Runnel-Signature"
)

// Config of a Hook. URL, Log and Now are required.
type Config struct {
	URL    string
	Secret []byte // of HMAC-SHA256; nil: nothing is signed
	Log    *slog.Logger
	Now    func() time.Time
	// After is time.After, or a test's.
	After func(time.Duration) <-chan time.Time
}

// Hook tells one address. Notify may be called concurrently; one goroutine runs Run.
type Hook struct {
	c      Config
	host   string // for the log: the rest of an address may be a secret
	client *http.Client
	queue  chan fleet.Notice
}

// CheckURL says what is wrong with an address.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return errors.New("it is no URL")
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return errors.New("it does not begin with http:// or https:// and a host")
	case u.User != nil || u.Fragment != "":
		return errors.New("it has a user or a fragment")
	}
	return nil
}

// New makes a hook. Nothing is sent before Run.
func New(c Config) (*Hook, error) {
	if err := CheckURL(c.URL); err != nil {
		return nil, err
	}
	if c.Secret != nil && len(c.Secret) < MinSecret {
		return nil, fmt.Errorf("the secret has %d bytes, %d are the least", len(c.Secret), MinSecret)
	}
	if c.After == nil {
		c.After = time.After
	}
	u, err := url.Parse(c.URL)
	if err != nil {
		return nil, err
	}
	// A hook that moved is told so to an operator: what is signed goes where it was meant to.
	client := &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return &Hook{c: c, host: u.Host, client: client, queue: make(chan fleet.Notice, Queue)}, nil
}

// Notify queues a notice and returns at once; where the queue is full it is dropped.
func (h *Hook) Notify(n fleet.Notice) {
	select {
	case h.queue <- n:
	default:
		h.c.Log.Error("a notification was dropped: too many wait", "id", n.ID, "waiting", Queue, "host", h.host)
	}
}

// Run sends until ctx ends; then each that is left is tried once more.
func (h *Hook) Run(ctx context.Context) error {
	for {
		select {
		case n := <-h.queue:
			if !h.deliver(ctx, n) {
				h.stop(&n)
				return nil
			}
		case <-ctx.Done():
			h.stop(nil)
			return nil
		}
	}
}

// deliver tries until it was taken, given up, or ctx ended: then it is false.
func (h *Hook) deliver(ctx context.Context, n fleet.Notice) bool {
	wait := time.Second
	for try := 1; ; try++ {
		again, err := h.send(ctx, n)
		switch {
		case err == nil:
			h.c.Log.Info("notified", "id", n.ID, "host", h.host, "try", try)
			return true
		case ctx.Err() != nil:
			return false
		case !again || try == Tries:
			h.c.Log.Error("a notification was given up", "id", n.ID, "host", h.host, "tries", try, "error", err)
			return true
		}
		h.c.Log.Warn("a notification failed and is tried again", "id", n.ID, "host", h.host, "try", try, "in", wait, "error", err)
		select {
		case <-h.c.After(wait):
		case <-ctx.Done():
			return false
		}
		wait = min(2*wait, maxWait)
	}
}

// stop tries what is left once, for a short time, and says what was not told.
func (h *Hook) stop(first *fleet.Notice) {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	left := []fleet.Notice{}
	if first != nil {
		left = append(left, *first)
	}
	for range len(h.queue) {
		left = append(left, <-h.queue)
	}
	for _, n := range left {
		if _, err := h.send(ctx, n); err != nil {
			h.c.Log.Error("a notification was lost: the server stops", "id", n.ID, "host", h.host, "error", err)
		}
	}
}

// send is one try. again: another may do better.
func (h *Hook) send(ctx context.Context, n fleet.Notice) (again bool, err error) {
	body, err := json.Marshal(n)
	if err != nil {
		return false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.c.URL, bytes.NewReader(body))
	if err != nil {
		return false, hidden(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "runnel")
	req.Header.Set(HeaderEvent, n.Event)
	req.Header.Set(HeaderDelivery, n.ID)
	if h.c.Secret != nil {
		req.Header.Set(HeaderSignature, Sign(h.c.Secret, h.c.Now(), body))
	}
	res, err := h.client.Do(req)
	if err != nil {
		return true, hidden(err)
	}
	defer res.Body.Close()
	// Read, so that the connection serves the next one; what it says is nobody's.
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer))
	switch c := res.StatusCode; {
	case c >= 200 && c < 300:
		return false, nil
	case c >= 300 && c < 400:
		return false, fmt.Errorf("status %d: redirects are not followed", c)
	case c >= 400 && c < 500 && c != http.StatusRequestTimeout && c != http.StatusTooManyRequests:
		return false, fmt.Errorf("status %d", c)
	default:
		return true, fmt.Errorf("status %d", c)
	}
}

// hidden is an error without the address, which may be a secret.
func hidden(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// Sign is the signature's header: the time of the try, and HMAC-SHA256 of it, a dot and the
// body. A receiver compares in constant time and refuses old times.
func Sign(secret []byte, now time.Time, body []byte) string {
	m := hmac.New(sha256.New, secret)
	fmt.Fprintf(m, "%d.", now.Unix())
	m.Write(body)
	return fmt.Sprintf("t=%d,v1=%s", now.Unix(), hex.EncodeToString(m.Sum(nil)))
}
