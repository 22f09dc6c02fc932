package devicehttp

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// Enrolment is what a device enrols with (docs/format/exchange.md, Enrolment).
type Enrolment struct {
	Token       string // public id
	TokenSecret [native.SecretSize]byte
	Device      string
	// Nonce is random, and the same for every try: only the same request gets the same answer.
	Nonce    [native.NonceSize]byte
	Hardware string
}

// Enrol asks the server once. With status EnrolTaken secret is the device's, number
// 0. Neither it nor the token's secret is in what is sent; errors have none either.
func (c *Client) Enrol(ctx context.Context, e Enrolment) (status native.EnrolStatus, secret [native.SecretSize]byte, err error) {
	var keys native.Keys
	var run digest.SHA256
	keys.DeriveToken(&e.TokenSecret, &run)
	mac := &native.SoftMAC{Keys: &keys, Run: &run}
	var buf [native.MaxBody]byte
	m := native.Enrol{Token: []byte(e.Token), Device: []byte(e.Device), Nonce: e.Nonce[:], Hardware: []byte(e.Hardware)}
	body, fault := m.Encode(buf[:], mac)
	if fault != 0 {
		return 0, secret, fmt.Errorf("token id, device id and hardware are printable and at most %d, %d and %d bytes", native.MaxToken, native.MaxDevice, native.MaxHardware)
	}
	wait := c.Timeout
	if wait == 0 {
		wait = defaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", c.base.String()+"/r1/enrol", bytes.NewReader(body))
	if err != nil {
		return 0, secret, err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, secret, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, secret, &StatusError{resp.StatusCode}
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, native.MaxBody+1))
	if err != nil {
		return 0, secret, err
	}
	var a native.Enrolled
	if fault := a.Decode(answer, mac, []byte(e.Device), &e.Nonce); fault != 0 {
		return 0, secret, fmt.Errorf("the answer is not the server's: %w", fault)
	}
	if a.Status == native.EnrolTaken {
		server := [native.NonceSize]byte(a.ServerNonce)
		native.DeviceSecret(&e.TokenSecret, &e.Nonce, &server, []byte(e.Device), &run, &secret)
	}
	return a.Status, secret, nil
}

// StatusError is an answer that says "not now". Nothing of it is believed.
type StatusError struct{ Status int }

func (e *StatusError) Error() string {
	return fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
}
