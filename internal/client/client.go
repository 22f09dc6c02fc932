// Package client calls a server's operator's API, /api/v1. Every verb of the
// command line uses it. It knows no command line and prints nothing.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	timeout       = 30 * time.Second // of a call that moves no image
	uploadTimeout = 10 * time.Minute
	maxAnswer     = 64 << 20 // bytes; 100,000 devices take half of it
	// sendBuffer, in bytes: the system's own would swallow a whole image, and who
	// counts what was read of it would show an upload as done before it began.
	sendBuffer = 128 << 10
)

// Client speaks to one server. Safe for concurrent use.
type Client struct {
	base  string
	token string
	http  *http.Client
}

// New takes the server's URL and an operator's token.
func New(server, token string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("%q is not a server's URL", redact(server)),
			Hint: "write it like http://127.0.0.1:8080"}
	}
	dialer := &net.Dialer{Timeout: timeout}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := dialer.DialContext(ctx, network, addr)
		if t, ok := c.(*net.TCPConn); ok {
			// A hint: a system that does not take it sends all the same.
			_ = t.SetWriteBuffer(sendBuffer)
		}
		return c, err
	}
	return &Client{base: strings.TrimRight(u.String(), "/") + "/api/v1", token: token, http: &http.Client{
		Transport: transport,
		// A token goes to the server that it was given for and to no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Server is the server's URL.
func (c *Client) Server() string { return strings.TrimSuffix(c.base, "/api/v1") }

func redact(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	return "what was given"
}

// Release is a release as the API shows it.
type Release struct {
	ID          int64     `json:"id"`
	Product     string    `json:"product"`
	Version     string    `json:"version"`
	Digest      string    `json:"digest"`
	Size        int64     `json:"size"`
	Chip        string    `json:"chip"`
	Project     string    `json:"project"`
	AppVersion  string    `json:"app_version"`
	IDFVersion  string    `json:"idf_version"`
	ChunkSize   int       `json:"chunk_size"`
	Chunks      int       `json:"chunks"`
	State       string    `json:"state"`
	PublishedAt time.Time `json:"published_at"`
	Channel     string    `json:"channel,omitempty"`
	Notes       string    `json:"notes,omitempty"`

	Signed          bool   `json:"signed"`
	Epoch           uint32 `json:"epoch"`
	Sequence        uint32 `json:"sequence"` // 0: unsigned
	SecurityVersion uint32 `json:"security_version"`
	Slot            *uint8 `json:"slot,omitempty"` // it is the build for this slot; nil: for any
	ManifestDigest  string `json:"manifest_digest,omitempty"`
}

// Published answers Publish.
type Published struct {
	Release Release `json:"release"`
	Created bool    `json:"created"`
	Warning string  `json:"warning,omitempty"`
}

// Deployment is a device's deployment.
type Deployment struct {
	Release        int64     `json:"release_id"`
	Version        string    `json:"version"`
	State          string    `json:"state"`
	ChunksReceived int       `json:"chunks_received"`
	ChunksTotal    int       `json:"chunks_total"`
	Verified       bool      `json:"verified"`
	BootStatus     string    `json:"boot_status,omitempty"`
	Reason         string    `json:"reason,omitempty"`
	Rollout        int64     `json:"rollout,omitempty"` // 0: none
	RawOnly        bool      `json:"raw_only,omitempty"`
	Phase          int       `json:"phase,omitempty"`
	Proven         bool      `json:"proven"`
	StartedAt      time.Time `json:"started_at"`
	UpdatedAt      time.Time `json:"updated_at"`
}

// Device is a device.
type Device struct {
	ID             string            `json:"id"`
	Product        string            `json:"product,omitempty"`
	Assurance      string            `json:"assurance"`
	Warning        string            `json:"warning,omitempty"`
	AddedAt        time.Time         `json:"added_at"`
	LastSeen       *time.Time        `json:"last_seen,omitempty"`
	RunningVersion string            `json:"running_version,omitempty"`
	RunningDigest  string            `json:"running_digest,omitempty"`
	Nonce          uint64            `json:"nonce"`
	Clocked        bool              `json:"clocked"`
	Signed         bool              `json:"signed"`
	StrongestWire  string            `json:"strongest_wire,omitempty"`
	NativeKeys     int               `json:"native_keys"`
	Hardware       string            `json:"hardware,omitempty"`
	Epoch          uint32            `json:"epoch,omitempty"`
	Sequence       uint32            `json:"sequence,omitempty"`
	SecVersion     uint32            `json:"security_version,omitempty"`
	ListVersion    uint32            `json:"list_version,omitempty"`
	Slots          int               `json:"slots,omitempty"`        // how many it has; 0: not said
	RunningSlot    *int              `json:"running_slot,omitempty"` // 255: its factory image
	SlotSizes      []uint32          `json:"slot_sizes,omitempty"`   // bytes, by slot
	Bootloader     *Bootloader       `json:"bootloader,omitempty"`   // nil: it has not polled over the native wire
	Patches        *Patches          `json:"patches,omitempty"`      // nil: it takes none
	Health         *fleet.Health     `json:"health,omitempty"`       // nil: it says nothing of it
	Tags           []string          `json:"tags,omitempty"`
	Attributes     map[string]string `json:"attributes,omitempty"`
	Failures       int               `json:"failures,omitempty"`
	RollbackWanted bool              `json:"rollback_wanted"`
	RollbackReason string            `json:"rollback_reason,omitempty"`
	RetryAt        *time.Time        `json:"retry_at,omitempty"`
	Deployment     *Deployment       `json:"deployment,omitempty"`
}

// Bootloader is what a device says that its chip and bootloader can do.
type Bootloader struct {
	Rollback        bool    `json:"rollback"`
	SecureBoot      bool    `json:"secure_boot"`
	FlashEncryption bool    `json:"flash_encryption"`
	SecureVersion   *uint32 `json:"secure_version,omitempty"`
}

// Patches is what a device says of patches and compressed images.
type Patches struct {
	Profiles []string `json:"profiles"`
	RAM      uint32   `json:"ram"` // bytes
}

// Event is a line of the log.
type Event = fleet.Event

// call sends in, if not nil, and reads the answer into out.
func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.do(req, out)
}

func (c *Client) do(req *http.Request, out any) error {
	req.Header.Set("Authorization", "Bearer "+c.token)
	resp, err := c.http.Do(req)
	if err != nil {
		var broken *url.Error
		if errors.As(err, &broken) {
			err = broken.Err // without the URL: it is in the hint
		}
		return &fleet.Error{Code: fleet.CodeBusy, Message: "the server can't be reached", Err: err,
			Hint: "is it running at " + c.Server() + "?"}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return &fleet.Error{Code: fleet.CodeBusy, Message: "the answer broke off", Err: err}
	}
	if len(b) > maxAnswer {
		return fleet.Errorf(fleet.CodeTooLarge, "the answer is longer than %d bytes", maxAnswer)
	}
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return problem(resp, b)
	}
	if err := json.Unmarshal(b, out); err != nil {
		return &fleet.Error{Code: fleet.CodeInternal, Message: "the answer is not that of a Runnel server", Err: err}
	}
	return nil
}

// problem makes an error of one that the server told.
func problem(resp *http.Response, b []byte) error {
	var p struct {
		Detail string `json:"detail"`
		Error  string `json:"error"`
		Code   string `json:"code"`
		Hint   string `json:"hint"`
		Errors []struct {
			Message  string `json:"message"`
			Location string `json:"location"`
		} `json:"errors"`
	}
	if json.Unmarshal(b, &p) != nil || p.Code == "" {
		return fleet.Errorf(fleet.CodeInternal, "the server answered %s, not as a Runnel server", resp.Status)
	}
	msg := p.Detail
	if msg == "" {
		msg = p.Error
	}
	for _, e := range p.Errors {
		msg += "; " + e.Location + ": " + e.Message
	}
	return &fleet.Error{Code: fleet.Code(p.Code), Message: fleet.CleanText(msg, 4*fleet.MaxText), Hint: fleet.CleanText(p.Hint, fleet.MaxText)}
}

// Health says whether the server answers.
func (c *Client) Health(ctx context.Context) error {
	var out struct{}
	return c.call(ctx, "GET", "/health", nil, &out)
}

// Publish uploads an image of size bytes. sha256, 64 hex digits, may be empty; chunkSize 0
// is the product's default.
func (c *Client) Publish(ctx context.Context, product, version string, chunkSize int, sha256 string, image io.Reader, size int64, say fleet.Publication) (Published, error) {
	q := saying(say)
	q.Set("product", product)
	q.Set("version", version)
	if chunkSize != 0 {
		q.Set("chunk_size", strconv.Itoa(chunkSize))
	}
	if sha256 != "" {
		q.Set("sha256", sha256)
	}
	return c.upload(ctx, "/releases?"+q.Encode(), "application/octet-stream", image, size)
}

// get is a GET with a query whose empty members are left away.
func (c *Client) get(ctx context.Context, path string, q url.Values, out any) error {
	for k := range q {
		if q.Get(k) == "" {
			q.Del(k)
		}
	}
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.call(ctx, "GET", path, nil, out)
}

// saying is what is said of a release, as a query.
func saying(p fleet.Publication) url.Values {
	q := url.Values{}
	if p.Draft {
		q.Set("draft", "true")
	}
	if p.Channel != "" {
		q.Set("channel", p.Channel)
	}
	if p.Notes != "" {
		q.Set("notes", p.Notes)
	}
	return q
}

// PublishDraft publishes a draft, in all of its builds.
func (c *Client) PublishDraft(ctx context.Context, id int64) (Release, error) {
	var out Release
	err := c.call(ctx, "POST", "/releases/"+strconv.FormatInt(id, 10)+"/publish", nil, &out)
	return out, err
}

// SetWords changes a release's notes or channel; nil leaves it.
func (c *Client) SetWords(ctx context.Context, id int64, w fleet.Words) (Release, error) {
	in := struct {
		Notes   *string `json:"notes,omitempty"`
		Channel *string `json:"channel,omitempty"`
	}{w.Notes, w.Channel}
	var out Release
	err := c.call(ctx, "POST", "/releases/"+strconv.FormatInt(id, 10), in, &out)
	return out, err
}

// Releases lists releases, newest first; product and channel "" mean all.
func (c *Client) Releases(ctx context.Context, product, channel string) ([]Release, error) {
	var out struct {
		Releases []Release `json:"releases"`
	}
	err := c.get(ctx, "/releases", url.Values{"product": {product}, "channel": {channel}}, &out)
	return out.Releases, err
}

// Withdraw has a release offered to no device any more.
func (c *Client) Withdraw(ctx context.Context, id int64) (Release, error) {
	var out Release
	err := c.call(ctx, "POST", "/releases/"+strconv.FormatInt(id, 10)+"/withdraw", nil, &out)
	return out, err
}

// AddDevice adds a device; psk, 64 hex digits, may be empty.
func (c *Client) AddDevice(ctx context.Context, id, product, psk string) (Device, error) {
	in := struct {
		ID      string `json:"id"`
		Product string `json:"product,omitempty"`
		PSK     string `json:"psk,omitempty"`
	}{id, product, psk}
	var out Device
	err := c.call(ctx, "POST", "/devices", in, &out)
	return out, err
}

// Devices lists devices.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	var out struct {
		Devices []Device `json:"devices"`
	}
	err := c.get(ctx, "/devices", nil, &out)
	return out.Devices, err
}

// Device is one device.
func (c *Client) Device(ctx context.Context, id string) (Device, error) {
	var out Device
	err := c.get(ctx, "/devices/"+url.PathEscape(id), nil, &out)
	return out, err
}

// Timeline is what became of a device, newest first.
func (c *Client) Timeline(ctx context.Context, id string, limit int) (events []Event, total int, err error) {
	return c.events(ctx, "/devices/"+url.PathEscape(id)+"/timeline", url.Values{"limit": {strconv.Itoa(limit)}})
}

// Logs is what happened, newest first; device "" means all.
func (c *Client) Logs(ctx context.Context, device string, limit int) (events []Event, total int, err error) {
	return c.events(ctx, "/logs", url.Values{"device": {device}, "limit": {strconv.Itoa(limit)}})
}

func (c *Client) events(ctx context.Context, path string, q url.Values) ([]Event, int, error) {
	var out struct {
		Total  int     `json:"total"`
		Events []Event `json:"events"`
	}
	err := c.get(ctx, path, q, &out)
	return out.Events, out.Total, err
}

// ResetNonce forgets the device's highest nonce and its clock.
func (c *Client) ResetNonce(ctx context.Context, id string) (Device, error) {
	return c.order(ctx, id, "reset-nonce")
}

// Retry lets the device try again what it found bad.
func (c *Client) Retry(ctx context.Context, id string) (Device, error) {
	return c.order(ctx, id, "retry")
}

func (c *Client) order(ctx context.Context, id, verb string) (Device, error) {
	var out Device
	err := c.call(ctx, "POST", "/devices/"+url.PathEscape(id)+"/"+verb, nil, &out)
	return out, err
}

// Rollback has the device go back; id "all" means every device. It answers how many were told.
func (c *Client) Rollback(ctx context.Context, id, reason string) (int, error) {
	in := struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
	var out struct {
		Devices int `json:"devices"`
	}
	err := c.call(ctx, "POST", "/devices/"+url.PathEscape(id)+"/rollback", in, &out)
	return out.Devices, err
}

// SetProductKey sets the key that devices of a product share. It answers a warning.
func (c *Client) SetProductKey(ctx context.Context, product, psk string) (string, error) {
	in := struct {
		Product string `json:"product"`
		PSK     string `json:"psk"`
	}{product, psk}
	var out struct {
		Warning string `json:"warning"`
	}
	err := c.call(ctx, "POST", "/product-keys", in, &out)
	return out.Warning, err
}
