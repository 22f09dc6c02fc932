package adminapi_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/adminapi"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
)

// A release's derived streams are shown with what they start from and save, and with what the
// server does by itself, or why it does nothing.
func TestDerivedDetail(t *testing.T) {
	w, in := signedWorld(t, func(c *adminapi.Config) { c.Derives = true })
	old, image := []byte(strings.Repeat("not an ESP image ", 300)), []byte(strings.Repeat("not an ESP image, ", 300))
	for i, b := range [][]byte{old, image} {
		m := releasetest.Manifest(t, "acme/pump", []string{"1.0", "1.1"}[i], b)
		m.Sequence = uint32(i + 1)
		var derived []release.DerivedFile
		if i == 1 {
			derived = append(derived, releasetest.Patch(t, m, []byte("an image that is not here"), []byte("patch")))
		}
		file := releasetest.File(t, nil, m, b, derived)
		if _, _, err := in.PublishRelease(t.Context(), bytes.NewReader(file), 0, fleet.Publication{}); err != nil {
			t.Fatal(err)
		}
	}
	show := func() (d adminapi.Detail) {
		t.Helper()
		rec := w.do("GET", "/releases/2", "")
		w.ok(rec, 200, `"streams":[`)
		if err := json.Unmarshal(rec.Body.Bytes(), &d); err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := show()
	var raw, patch adminapi.Stream
	for _, s := range d.Streams {
		if s.Kind == "raw" {
			raw = s
		} else {
			patch = s
		}
	}
	if patch.BaseVersion != "" || patch.Profile != "large" || patch.RAM != 4096 || patch.Sent <= patch.Length || math.Abs(patch.Share-float64(patch.Sent)/float64(raw.Length)) > 1e-9 ||
		patch.SignedBy != release.KeyName(releasetest.Public("stream")) || !patch.Listed || patch.Proven {
		t.Errorf("%+v", patch)
	}
	if raw.Sent != 0 || raw.Share != 0 || raw.SignedBy != "" || raw.Listed {
		t.Errorf("%+v", raw)
	}
	w.fails(w.do("GET", "/stream-key", ""), 404, "not_found")

	if d.Derived == nil || !strings.Contains(d.Derived.Why, "no stream key") {
		t.Errorf("%+v", d.Derived)
	}
	seed := fleet.Key{1}
	if _, err := w.store.AddStreamKey(t.Context(), seed, false, t0); err != nil {
		t.Fatal(err)
	}
	public := ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
	w.ok(w.do("GET", "/stream-key", ""), 200, `"public":"`+hex.EncodeToString(public)+`","listed":false,"products":[]`)
	if d := show(); d.Derived.Key != release.KeyName(public) || d.Derived.Listed || !strings.Contains(d.Derived.Why, "runnel keys server") {
		t.Errorf("%+v", d.Derived)
	}
	l := releasetest.List(2, "acme/pump", "acme/valve")
	l.Keys = append(l.Keys, release.Key{Public: public, Roles: manifest.RoleStream, Products: []string{"acme/pump"}})
	if _, _, err := in.AddKeyList(t.Context(), releasetest.SealList(t, l)); err != nil {
		t.Fatal(err)
	}
	w.ok(w.do("GET", "/stream-key", ""), 200, `"listed":true,"products":["acme/pump"]`)
	if d := show(); !d.Derived.Listed || d.Derived.Why != "" || len(d.Derived.List) != 0 {
		t.Errorf("%+v", d.Derived)
	}
	// One from the first release is made, one of the compressed image was dropped.
	for _, j := range []fleet.Derivation{
		{DerivationName: fleet.DerivationName{Release: 2, Base: sha256.Sum256(old), Profile: 1}, State: fleet.DerivationMaking, Devices: 12, Percent: 40, Lease: t0},
		{DerivationName: fleet.DerivationName{Release: 2, Profile: 2}, State: fleet.DerivationDropped, Devices: 1, Sent: 5000, Reason: "too little"}} {
		if begun, err := w.store.BeginDerivation(t.Context(), j, "x", t0); !begun || err != nil {
			t.Fatal(begun, err)
		}
		if saved, err := w.store.SaveDerivation(t.Context(), j, "x", t0); !saved || err != nil {
			t.Fatal(saved, err)
		}
	}
	list := show().Derived.List
	want := []adminapi.Derivation{
		{Kind: "compressed", Profile: "small", State: "dropped", Devices: 1, Sent: 5000, Reason: "too little"},
		{Kind: "patch", Base: hex.EncodeToString(sum(old)), BaseVersion: "1.0", Profile: "large", State: "making", Devices: 12, Percent: 40}}
	if len(list) != 2 || list[0] != want[0] || list[1] != want[1] {
		t.Errorf("%+v", list)
	}
	// Another key: the old one's public half is in the list, the new one's is not.
	rec := w.do("POST", "/stream-key/renew", "")
	w.ok(rec, 200, `"listed":false`)
	if strings.Contains(rec.Body.String(), hex.EncodeToString(public)) {
		t.Error("renewing made the same key")
	}
	if now, err := w.store.StreamKey(t.Context()); err != nil || now == seed || strings.Contains(rec.Body.String(), hex.EncodeToString(now[:])) {
		t.Errorf("%v: the secret is kept, or shown", err)
	}
}

func sum(b []byte) []byte {
	d := sha256.Sum256(b)
	return d[:]
}
