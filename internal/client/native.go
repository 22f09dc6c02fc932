package client

import (
	"context"
	"net/url"
	"time"
)

// AddNativeDevice adds a device with a native key and, where psk is not empty, a v1
// key; each is 64 hex digits.
func (c *Client) AddNativeDevice(ctx context.Context, id, product, native, psk string) (Device, error) {
	in := struct {
		ID      string `json:"id"`
		Product string `json:"product,omitempty"`
		PSK     string `json:"psk,omitempty"`
		Native  string `json:"native_key"`
	}{id, product, psk, native}
	var out Device
	err := c.call(ctx, "POST", "/devices", in, &out)
	return out, err
}

// AddNativeKey gives a device one more native key, 64 hex digits, and answers its number.
func (c *Client) AddNativeKey(ctx context.Context, id, native string) (int, error) {
	in := struct {
		Native string `json:"native_key"`
	}{native}
	var out struct {
		Number int `json:"key_number"`
	}
	err := c.call(ctx, "POST", "/devices/"+url.PathEscape(id)+"/native-keys", in, &out)
	return out.Number, err
}

// ResetWire lets the device speak a weaker wire than it did.
func (c *Client) ResetWire(ctx context.Context, id string) (Device, error) {
	return c.order(ctx, id, "reset-wire")
}

// EnrolToken is an enrolment token.
type EnrolToken struct {
	ID        string     `json:"id"`
	Product   string     `json:"product"`
	IDPattern string     `json:"id_pattern,omitempty"`
	Count     int        `json:"count"`
	Used      int        `json:"used"`
	Approval  bool       `json:"approval"`
	CreatedAt time.Time  `json:"created_at"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`
	RevokedAt *time.Time `json:"revoked_at,omitempty"`
	Warning   string     `json:"warning,omitempty"`
}

// Enrolment is a device that came with a token.
type Enrolment struct {
	Device   string    `json:"device"`
	Token    string    `json:"token"`
	Hardware string    `json:"hardware"`
	Status   string    `json:"status"`
	Time     time.Time `json:"time"`
}

// AddEnrolToken makes a token with that secret, 64 hex digits.
func (c *Client) AddEnrolToken(ctx context.Context, t EnrolToken, secret string) (EnrolToken, error) {
	in := struct {
		ID        string     `json:"id"`
		Secret    string     `json:"secret"`
		Product   string     `json:"product"`
		IDPattern string     `json:"id_pattern,omitempty"`
		Count     int        `json:"count"`
		ExpiresAt *time.Time `json:"expires_at,omitempty"`
		Approval  bool       `json:"approval,omitempty"`
	}{t.ID, secret, t.Product, t.IDPattern, t.Count, t.ExpiresAt, t.Approval}
	var out EnrolToken
	err := c.call(ctx, "POST", "/enrol-tokens", in, &out)
	return out, err
}

// EnrolTokens lists tokens, and devices that wait for approval.
func (c *Client) EnrolTokens(ctx context.Context) (tokens []EnrolToken, waiting []Enrolment, err error) {
	var out struct {
		Tokens  []EnrolToken `json:"tokens"`
		Waiting []Enrolment  `json:"waiting"`
	}
	err = c.get(ctx, "/enrol-tokens", nil, &out)
	return out.Tokens, out.Waiting, err
}

// RevokeEnrolToken lets no more devices in by it.
func (c *Client) RevokeEnrolToken(ctx context.Context, id string) error {
	var out struct{}
	return c.call(ctx, "POST", "/enrol-tokens/"+url.PathEscape(id)+"/revoke", nil, &out)
}

// Approve lets a device in that waits; token "" is the one by which it waits.
func (c *Client) Approve(ctx context.Context, id, token string) (Enrolment, error) {
	in := struct {
		Token string `json:"token,omitempty"`
	}{token}
	var out Enrolment
	err := c.call(ctx, "POST", "/devices/"+url.PathEscape(id)+"/approve", in, &out)
	return out, err
}

// KeyLists lists the key lists that the server holds, newest first.
func (c *Client) KeyLists(ctx context.Context) ([]KeyList, error) {
	var out struct {
		KeyLists []KeyList `json:"keylists"`
	}
	err := c.get(ctx, "/keylists", nil, &out)
	return out.KeyLists, err
}

// StreamKey is the server's key for the sheets of streams that it makes.
type StreamKey struct {
	Key      string   `json:"key"`
	Public   string   `json:"public"` // 64 hex digits
	Listed   bool     `json:"listed"`
	Products []string `json:"products"`
}

// StreamKey is the one in force; with renew a new one.
func (c *Client) StreamKey(ctx context.Context, renew bool) (k StreamKey, err error) {
	if renew {
		err = c.call(ctx, "POST", "/stream-key/renew", nil, &k)
	} else {
		err = c.get(ctx, "/stream-key", nil, &k)
	}
	return k, err
}
