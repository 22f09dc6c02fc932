package native

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/digest"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// v1Get is a request as a v1 device signs it.
func v1Get(mux *http.ServeMux, id string, key fleet.Key, target string, nonce int, now time.Time) (int, string) {
	r := httptest.NewRequest("GET", target, nil)
	n, ts := fmt.Sprint(nonce), fmt.Sprint(now.Unix())
	m := hmac.New(sha256.New, key[:])
	io.WriteString(m, target+n+ts)
	r.Header.Set("Device-ID", id)
	r.Header.Set("X-Nonce", n)
	r.Header.Set("X-Timestamp", ts)
	r.Header.Set("X-MAC", hex.EncodeToString(m.Sum(nil)))
	rec := httptest.NewRecorder()
	mux.ServeHTTP(rec, r)
	return rec.Code, rec.Body.String()
}

// newcomer is a device with a token.
type newcomer struct {
	w      *rig
	id     string
	token  string
	secret [32]byte
	keys   core.Keys
	nonce  [16]byte
	tls    bool
	from   string
}

func (w *rig) token(t fleet.EnrolToken) {
	w.t.Helper()
	if t.Count == 0 {
		t.Count = 1
	}
	t.Product = product
	w.ok(w.store.AddEnrolToken(w.t.(*testing.T).Context(), t, fleet.Key(secretOf("token "+t.ID)), w.now()))
}

func (w *rig) newcomer(id, token string, nonce byte) *newcomer {
	n := &newcomer{w: w, id: id, token: token, secret: secretOf("token " + token), nonce: [16]byte{nonce}, from: "127.0.0.1:5000"}
	var run digest.SHA256
	n.keys.DeriveToken(&n.secret, &run)
	return n
}

func (n *newcomer) send() *httptest.ResponseRecorder {
	n.w.t.Helper()
	m := core.Enrol{Token: []byte(n.token), Device: []byte(n.id), Nonce: n.nonce[:], Hardware: []byte("r2")}
	body, e := m.Encode(make([]byte, core.MaxBody), softMAC(&n.keys))
	if e != 0 {
		n.w.t.Fatal(e)
	}
	r := httptest.NewRequest("POST", PathEnrol, bytes.NewReader(body))
	r.RemoteAddr = n.from
	if n.tls {
		r.TLS = &tls.ConnectionState{}
	}
	rec := httptest.NewRecorder()
	n.w.mux.ServeHTTP(rec, r)
	return rec
}

// enrol wants a status, and answers the device's secret where it is taken.
func (n *newcomer) enrol(want core.EnrolStatus) (secret [32]byte) {
	n.w.t.Helper()
	rec := n.send()
	var a core.Enrolled
	if rec.Code != http.StatusOK || rec.Header().Get("Cache-Control") != "no-store" {
		n.w.t.Fatalf("%d %v", rec.Code, rec.Header())
	}
	if e := a.Decode(rec.Body.Bytes(), softMAC(&n.keys), []byte(n.id), &n.nonce); e != 0 {
		n.w.t.Fatal(e)
	}
	if a.Status != want {
		n.w.t.Errorf("%s: status %d, not %d; log: %s", n.id, a.Status, want, &n.w.log)
	}
	var run digest.SHA256
	server := [16]byte(a.ServerNonce)
	core.DeviceSecret(&n.secret, &n.nonce, &server, []byte(n.id), &run, &secret)
	return secret
}

func TestEnrol(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	w.token(fleet.EnrolToken{ID: "line-3", Pattern: "pump-*"})
	n := w.newcomer("pump-1", "line-3", 1)
	secret := n.enrol(core.EnrolTaken)
	if got := n.enrol(core.EnrolTaken); got != secret {
		t.Error("the same request, and another key")
	}
	w.restart()
	if got := n.enrol(core.EnrolTaken); got != secret {
		t.Error("the same request after a restart, and another key")
	}
	b := w.device("pump-1", secret, 0)
	b.offered(r)
	n.enrol(core.EnrolRefused) // it has polled
	w.newcomer("pump-1", "line-3", 2).enrol(core.EnrolRefused)
	w.newcomer("pump-2", "line-3", 1).enrol(core.EnrolRefused) // spent
	if d := w.fleetDevice("pump-1"); d.Product != product || d.Assurance != fleet.AssuranceOwn {
		t.Errorf("%+v", d)
	}
	if log := w.log.String(); !strings.Contains(log, "the token is spent") {
		t.Error(log)
	}
	for _, text := range []string{w.log.String(), strings.Join(w.timeline(""), ""), w.state("pump-1")} {
		for _, s := range [][32]byte{secret, n.secret} {
			if strings.Contains(text, hex.EncodeToString(s[:8])) || strings.Contains(text, string(s[:8])) {
				t.Error("a secret came out")
			}
		}
	}
}

// Who enrols with a known id gets nothing, whatever the token says.
func TestEnrolKnownID(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	b := w.board("pump-1")
	b.ask()
	w.ok(nil, w.store.AddDevice(t.Context(), fleet.Device{ID: "old"}, &fleet.Key{7}, w.now()))
	w.token(fleet.EnrolToken{ID: "t", Count: 9})
	w.newcomer("pump-1", "t", 1).enrol(core.EnrolRefused)
	w.newcomer("old", "t", 1).enrol(core.EnrolRefused)
	b.ask()
	if d := w.fleetDevice("old"); d.NativeKeys != 0 {
		t.Errorf("%+v", d)
	}
	w.newcomer("all", "t", 1).enrol(core.EnrolRefused)
}

func TestEnrolApproval(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	w.token(fleet.EnrolToken{ID: "t", Approval: true})
	n := w.newcomer("pump-1", "t", 1)
	secret := n.enrol(core.EnrolWaits)
	if rec := w.post(nil, PathPoll, w.device("pump-1", secret, 0).body()); rec.Code != http.StatusUnauthorized {
		t.Errorf("it polls before it was approved: %d", rec.Code)
	}
	n.enrol(core.EnrolWaits)
	w.ok(w.store.ApproveEnrolment(t.Context(), "pump-1", "", w.now()))
	w.restart()
	if got := n.enrol(core.EnrolTaken); got != secret {
		t.Error("the key changed by the approval")
	}
	w.device("pump-1", secret, 0).ask()
	want := "enrol_waits: with token t|enrol_approved: token t|enrolled: with token t"
	if got := strings.Join(w.timeline("pump-1")[:3], "|"); got != want {
		t.Error(got)
	}
}

func TestEnrolRefusals(t *testing.T) {
	w := newRig(t, nil)
	w.token(fleet.EnrolToken{ID: "t", Pattern: "pump-?", Count: 5, ExpiresAt: w.now().Add(time.Hour)})
	w.newcomer("pump-11", "t", 1).enrol(core.EnrolRefused)
	w.newcomer("pump-1", "t", 1).enrol(core.EnrolTaken)
	w.advance(time.Hour)
	w.newcomer("pump-2", "t", 1).enrol(core.EnrolRefused)
	// The same request again is still answered: the device may have lost the first.
	w.newcomer("pump-1", "t", 1).enrol(core.EnrolTaken)

	// An unknown token, a wrong secret and a revoked one: one answer.
	want := fmt.Sprint(w.newcomer("pump-3", "none", 1).send())
	wrong := w.newcomer("pump-3", "t", 1)
	wrong.secret = secretOf("x")
	var run digest.SHA256
	wrong.keys.DeriveToken(&wrong.secret, &run)
	if got := fmt.Sprint(wrong.send()); got != want || !strings.Contains(got, "401") {
		t.Errorf("%s, not %s", got, want)
	}
	w.ok(nil, w.store.RevokeEnrolToken(t.Context(), "t", w.now()))
	if got := fmt.Sprint(w.newcomer("pump-1", "t", 1).send()); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	// Nor is a zero secret that of a token which is not there.
	zero := w.newcomer("pump-3", "none", 1)
	zero.secret = [32]byte{}
	zero.keys.DeriveToken(&zero.secret, &run)
	if got := fmt.Sprint(zero.send()); got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if rec := w.post(nil, PathEnrol, bytes.Repeat([]byte{0xFF}, 90)); rec.Code != http.StatusBadRequest {
		t.Error(rec.Code)
	}
}

// A token that several devices share is taken where nobody can have recorded it.
func TestSharedTokenNeedsTLS(t *testing.T) {
	for _, c := range []struct {
		name  string
		count int
		from  string
		tls   bool
		proxy bool
		want  core.EnrolStatus
	}{
		{"shared, in the clear", 2, "192.0.2.7:1", false, false, core.EnrolRefused},
		{"shared, TLS", 2, "192.0.2.7:1", true, false, core.EnrolTaken},
		{"shared, behind a proxy", 2, "192.0.2.7:1", false, true, core.EnrolTaken},
		{"shared, this machine", 2, "[::1]:1", false, false, core.EnrolTaken},
		{"shared, from nowhere", 2, "", false, false, core.EnrolRefused},
		{"of one device, in the clear", 1, "192.0.2.7:1", false, false, core.EnrolTaken},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newRig(t, func(f *Config) { f.TLSProxy = c.proxy })
			w.token(fleet.EnrolToken{ID: "t", Count: c.count})
			n := w.newcomer("pump-1", "t", 1)
			n.from, n.tls = c.from, c.tls
			n.enrol(c.want)
		})
	}
}

func TestKeyLists(t *testing.T) {
	w := newRig(t, nil)
	get := func(path string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", PathKeyLists+path, nil)
		if len(header) == 2 {
			r.Header.Set(header[0], header[1])
		}
		rec := httptest.NewRecorder()
		w.mux.ServeHTTP(rec, r)
		return rec
	}
	for _, path := range []string{"latest", "1", "0", "01", "-1", "x", "4294967296"} {
		if rec := get(path); rec.Code != http.StatusNotFound || rec.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, rec.Code, rec.Header())
		}
	}
	w.keyList(1, 0)
	w.keyList(1, 3)
	newest, err := w.store.NewestKeyList(t.Context())
	w.ok(nil, err)
	first, err := w.store.KeyListOf(t.Context(), 1)
	w.ok(nil, err)
	if newest.Version != 2 || first.Version != 1 {
		t.Fatal(newest.Version, first.Version)
	}
	for path, want := range map[string]fleet.KeyList{"latest": newest, "1": first} {
		rec := get(path)
		if rec.Code != 200 || !bytes.Equal(rec.Body.Bytes(), want.Envelope) || rec.Header().Get("ETag") != `"`+want.Digest.String()+`"` || rec.Header().Get("Content-Type") != "application/cose" {
			t.Errorf("%s: %d %v", path, rec.Code, rec.Header())
		}
		if rec := get(path, "If-None-Match", `"`+want.Digest.String()+`"`); rec.Code != http.StatusNotModified {
			t.Errorf("%s: %d", path, rec.Code)
		}
	}
	if c := get("latest").Header().Get("Cache-Control"); !strings.Contains(c, "no-cache") {
		t.Error(c)
	}
	if c := get("1").Header().Get("Cache-Control"); !strings.Contains(c, "immutable") {
		t.Error(c)
	}
}
