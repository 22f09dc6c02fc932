package devicehttp

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// An answer counts if the token's holder made it for this request: whatever else
// comes, there is no secret.
func TestEnrol(t *testing.T) {
	e := Enrolment{Token: "line-3", TokenSecret: [32]byte{1}, Device: "pump-1", Nonce: [16]byte{2}, Hardware: "r2"}
	var keys, others native.Keys
	var run digest.SHA256
	keys.DeriveToken(&e.TokenSecret, &run)
	others.DeriveToken(&[32]byte{9}, &run)
	server := [16]byte{3}
	var want [32]byte
	native.DeviceSecret(&e.TokenSecret, &e.Nonce, &server, []byte(e.Device), &run, &want)
	answer := func(k *native.Keys, change func(*native.Enrolled)) []byte {
		a := native.Enrolled{Device: []byte(e.Device), Nonce: e.Nonce[:], ServerNonce: server[:], Status: native.EnrolTaken}
		change(&a)
		b, fault := a.Encode(make([]byte, native.MaxBody), &native.SoftMAC{Keys: k, Run: new(digest.SHA256)})
		if fault != 0 {
			t.Fatal(fault)
		}
		return b
	}
	for _, c := range []struct {
		name   string
		status int
		body   []byte
		want   native.EnrolStatus // 0: an error
	}{
		{"taken", 200, answer(&keys, func(*native.Enrolled) {}), native.EnrolTaken},
		{"waits", 200, answer(&keys, func(a *native.Enrolled) { a.Status = native.EnrolWaits }), native.EnrolWaits},
		{"refused", 200, answer(&keys, func(a *native.Enrolled) { a.Status = native.EnrolRefused }), native.EnrolRefused},
		{"another token's", 200, answer(&others, func(*native.Enrolled) {}), 0},
		{"another request's", 200, answer(&keys, func(a *native.Enrolled) { a.Nonce = make([]byte, 16) }), 0},
		{"another device's", 200, answer(&keys, func(a *native.Enrolled) { a.Device = []byte("pump-2") }), 0},
		{"cut", 200, answer(&keys, func(*native.Enrolled) {})[:60], 0},
		{"without end", 200, make([]byte, 5000), 0},
		{"401", 401, nil, 0},
	} {
		var sent []byte
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			sent, _ = io.ReadAll(r.Body)
			if r.URL.Path != "/r1/enrol" || r.Method != "POST" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			w.WriteHeader(c.status)
			w.Write(c.body)
		}))
		client, err := New(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		status, secret, err := client.Enrol(t.Context(), e)
		if (err != nil) != (c.want == 0) || status != c.want {
			t.Errorf("%s: %d %v", c.name, status, err)
		}
		if (secret == want) != (c.want == native.EnrolTaken) || c.want != native.EnrolTaken && secret != [32]byte{} {
			t.Errorf("%s: the secret is %x", c.name, secret[:2])
		}
		if c.status == 401 {
			var no *StatusError
			if !errors.As(err, &no) || no.Status != 401 {
				t.Errorf("%v", err)
			}
		}
		if len(sent) == 0 || bytes.Contains(sent, e.TokenSecret[:]) || bytes.Contains(sent, want[:]) {
			t.Errorf("%s: sent %x", c.name, sent)
		}
		client.Close()
		s.Close()
	}
	client, _ := New("http://127.0.0.1:1")
	e.Hardware = ""
	if _, _, err := client.Enrol(t.Context(), e); err == nil {
		t.Error("without hardware")
	}
}
