package client

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Manifest is what a release's manifest says.
type Manifest struct {
	Product         string     `json:"product"`
	Hardware        []string   `json:"hardware"`
	Version         string     `json:"version"`
	Epoch           uint32     `json:"epoch"`
	Sequence        uint32     `json:"sequence"`
	SecurityVersion uint32     `json:"security_version"`
	Component       string     `json:"component"`
	Format          string     `json:"format"`
	Chip            *uint16    `json:"chip,omitempty"`
	ImageDigest     string     `json:"image_digest"`
	ImageSize       uint32     `json:"image_size"`
	Slot            *uint8     `json:"slot,omitempty"`
	Address         *uint32    `json:"address,omitempty"`
	ConfirmContact  bool       `json:"confirm_contact"`
	ConfirmSeconds  uint32     `json:"confirm_seconds"`
	SignedAt        *time.Time `json:"signed_at,omitempty"`
}

// Signer is who signed a manifest.
type Signer struct {
	Key    string `json:"key"`
	Listed bool   `json:"listed"` // by the newest key list
}

// Stream is a stream of a release.
type Stream struct {
	Kind   string `json:"kind"`
	Chunk  uint32 `json:"chunk"`
	Length int64  `json:"length"`
	Root   string `json:"root"`
	Digest string `json:"digest"`
	Base   string `json:"base,omitempty"`
	// Of a derived stream:
	BaseVersion string  `json:"base_version,omitempty"`
	Profile     string  `json:"profile,omitempty"`
	RAM         uint32  `json:"ram,omitempty"`
	Sent        int64   `json:"sent,omitempty"`
	Share       float64 `json:"share,omitempty"`
	SignedBy    string  `json:"signed_by,omitempty"`
	Listed      bool    `json:"listed,omitempty"`
	Proven      bool    `json:"proven,omitempty"`
}

// Derivation is a derived stream that the server makes by itself.
type Derivation struct {
	Kind        string `json:"kind"`
	Base        string `json:"base,omitempty"`
	BaseVersion string `json:"base_version,omitempty"`
	Profile     string `json:"profile"`
	State       string `json:"state"`
	Devices     int    `json:"devices"`
	Percent     int    `json:"percent"`
	Sent        int64  `json:"sent,omitempty"`
	Reason      string `json:"reason,omitempty"`
	Stream      string `json:"stream,omitempty"`
}

// Derived is what a server does by itself for a release.
type Derived struct {
	Key    string       `json:"key,omitempty"`
	Listed bool         `json:"listed"`
	Why    string       `json:"why,omitempty"`
	List   []Derivation `json:"list"`
}

// ReleaseDetail is a release with what was signed.
type ReleaseDetail struct {
	Release
	Hardware string    `json:"hardware,omitempty"`
	Manifest *Manifest `json:"manifest,omitempty"` // nil: unsigned
	Signers  []Signer  `json:"signers"`
	Streams  []Stream  `json:"streams"`
	Derived  *Derived  `json:"derived,omitempty"` // nil: unsigned, or an older server
	Builds   []Build   `json:"builds,omitempty"`  // all of them, by their slots; nil: for any slot
}

// Build is one of the builds of a release that is linked once a slot.
type Build struct {
	Slot   uint8  `json:"slot"`
	ID     int64  `json:"id"`
	Digest string `json:"digest"`
}

// upload sends size bytes of body to be published.
func (c *Client) upload(ctx context.Context, path, kind string, body io.Reader, size int64) (Published, error) {
	ctx, cancel := context.WithTimeout(ctx, uploadTimeout)
	defer cancel()
	var out Published
	req, err := http.NewRequestWithContext(ctx, "POST", c.base+path, io.NopCloser(body))
	if err != nil {
		return out, err
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", kind)
	return out, c.do(req, &out)
}

// PublishRelease uploads a release file of size bytes.
func (c *Client) PublishRelease(ctx context.Context, file io.Reader, size int64, say fleet.Publication) (Published, error) {
	path := "/releases"
	if q := saying(say); len(q) > 0 {
		path += "?" + q.Encode()
	}
	return c.upload(ctx, path, "application/vnd.runnel.release", file, size)
}

// ReleaseDetail is one release, by its id.
func (c *Client) ReleaseDetail(ctx context.Context, id int64) (ReleaseDetail, error) {
	var out ReleaseDetail
	err := c.get(ctx, "/releases/"+strconv.FormatInt(id, 10), nil, &out)
	return out, err
}

// KeyList is a key list that the server holds.
type KeyList struct {
	Version    uint32    `json:"version"`
	Generation uint32    `json:"generation"`
	SHA256     string    `json:"sha256"`
	AddedAt    time.Time `json:"added_at"`
}

// PublishKeyList gives the server a key list, as its envelope.
func (c *Client) PublishKeyList(ctx context.Context, envelope []byte) (l KeyList, created bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", c.base+"/keylists", bytes.NewReader(envelope))
	if err != nil {
		return l, false, err
	}
	req.Header.Set("Content-Type", "application/cose")
	var out struct {
		KeyList KeyList `json:"keylist"`
		Created bool    `json:"created"`
	}
	err = c.do(req, &out)
	return out.KeyList, out.Created, err
}
