package board

import (
	"crypto/ed25519"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/release"
)

// Who holds which key, and what the board lets him do: rows of docs/security.md.

// trusting is a board on which other people are trusted.
func trusting(t testing.TB, p *trustees) (*nativeWorld, geometry) {
	t.Helper()
	g := standard()
	g.imgSize = 16 << 10
	w := newNativeWorld(t, g, image(t, 8192, "A", BehaveOK))
	w.p, w.built.Roots, w.s.first = p, p.trust.Baked(), map[uint32][]byte{}
	return w, g
}

// claims has the server say that there is this list, whoever signed it.
func (w *nativeWorld) claims(signers ...ed25519.PrivateKey) {
	w.t.Helper()
	w.s.latest = w.p.sign(w.t, manifest.KindKeys, w.p.list.Encode, signers...)
	said := *w.p.trust
	said.Version, said.Generation = w.p.list.Version, w.p.list.Generation
	w.s.trust = &said
}

// takes says whether the board, given an hour, ends with the release.
func (w *nativeWorld) takes(g geometry, r *nativeRelease) bool {
	w.t.Helper()
	w.forget()
	w.s.put(r)
	// Until the server has heard of it: then it is in the state too.
	w.hours(1, boot.ResetPowerOn, w.watch(g, r), func(e device.Event) bool {
		return e.Kind == device.EventReported && w.up.State().Confirmed.Digest == r.m.Image.Digest
	})
	return w.up.State().Confirmed.Digest == r.m.Image.Digest
}

func (w *nativeWorld) refuses(g geometry, r *nativeRelease, why device.Reason) {
	w.t.Helper()
	if w.takes(g, r) || w.s.fetched != 0 {
		w.t.Fatalf("%s was taken, %d bytes fetched", r.m.Version, w.s.fetched)
	}
	if _, ok := w.saw(device.EventFailed, why); !ok {
		reasons, _ := w.reasons()
		w.t.Fatalf("%s: %q was not said, but %v", r.m.Version, why, reasons)
	}
}

// m-1 roots make no key list.
func TestOneRootOfTwo(t *testing.T) {
	p := newTrustees(t, 3, 2)
	w, g := trusting(t, p)
	w.list(p.roots[0], p.roots[2])
	w.hours(1, boot.ResetPowerOn, w.watch(g), at(device.EventUpToDate))
	if w.trusts() != 1 {
		t.Fatal("two roots of three made no list")
	}
	// One root alone would put its own release key in.
	evil := keyOf(0x66)
	good := p.list.Keys
	p.list.Version, p.list.Keys = 2, append([]release.Key{{Public: public(evil), Roles: manifest.RoleRelease}}, good...)
	w.claims(p.roots[1])
	mine := p.releases
	p.releases = []ed25519.PrivateKey{evil}
	w.refuses(g, p.release(t, image(t, g.imgSize, "evil", BehaveOK), "evil", 1, g.chunk), device.ReasonKeyList)
	if w.trusts() != 1 {
		t.Fatalf("list %d is held", w.trusts())
	}
	p.releases, p.list.Keys = mine, good
	w.list(p.roots[1], p.roots[2])
	if !w.takes(g, p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)) {
		t.Error("two roots of three, and nothing was taken")
	}
}

// A server with one release key where two are needed makes no release.
func TestOneReleaseKeyOfTwo(t *testing.T) {
	p := newTrustees(t, 1, 1)
	w, g := trusting(t, p)
	p.releases = append(p.releases, keyOf(0x41))
	p.list.Keys = append(p.list.Keys, release.Key{Public: public(p.releases[1]), Roles: manifest.RoleRelease})
	p.list.Products[0].Threshold = 2
	w.list(p.roots...)
	both := p.releases
	for _, who := range [][]ed25519.PrivateKey{both[:1], both[1:], {both[0], keyOf(0x66)}} {
		p.releases = who
		w.refuses(g, p.release(t, image(t, g.imgSize, "half", BehaveOK), "half", 1, g.chunk), device.ReasonSignature)
	}
	p.releases = both
	if !w.takes(g, p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)) {
		t.Error("signed by both, and not taken")
	}
}

// A key that may sign streams, or releases of other products, signs none of ours.
func TestKeysOfOtherRoles(t *testing.T) {
	for _, c := range []struct {
		name string
		key  release.Key
	}{
		{"stream", release.Key{Roles: manifest.RoleStream}},
		{"another product's", release.Key{Roles: manifest.RoleRelease, Products: []string{"test/other"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newTrustees(t, 1, 1)
			w, g := trusting(t, p)
			thief := keyOf(0x66)
			c.key.Public = public(thief)
			p.list.Keys = append(p.list.Keys, c.key)
			p.list.Products = append(p.list.Products, release.Product{Name: "test/other", Threshold: 1})
			w.list(p.roots...)
			mine := p.releases
			p.releases = []ed25519.PrivateKey{thief}
			w.refuses(g, p.release(t, image(t, g.imgSize, "evil", BehaveOK), "evil", 9, g.chunk), device.ReasonSignature)
			// What its holder may sign is for other devices.
			other := p.release(t, image(t, g.imgSize, "theirs", BehaveOK), "theirs", 9, g.chunk, func(m *release.Manifest) { m.Product = "test/other" })
			if w.takes(g, other) || w.s.fetched != 0 {
				t.Fatal("another product's release was taken")
			}
			p.releases = mine
			if !w.takes(g, p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)) {
				t.Error("signed by the right key, and not taken")
			}
		})
	}
}

// A leaked key that was revoked, in a server that is taken over: who has seen the
// newer key list is safe for good, who has not is fooled. Said so in docs/security.md.
func TestRevokedKey(t *testing.T) {
	for _, seen := range []bool{true, false} {
		p := newTrustees(t, 1, 1)
		w, g := trusting(t, p)
		w.list(p.roots...)
		old, said := w.s.latest, w.s.trust
		w.hours(1, boot.ResetPowerOn, w.watch(g), at(device.EventUpToDate))
		leaked := p.releases
		p.list.Version, p.list.Keys = 2, []release.Key{{Public: public(keyOf(0x41)), Roles: manifest.RoleRelease}}
		w.list(p.roots...)
		if seen {
			w.hours(1, boot.ResetPowerOn, w.watch(g), at(device.EventUpToDate))
		}
		// From here on the server says that the old list is the newest.
		w.s.latest, w.s.trust, p.releases = old, said, leaked
		evil := p.release(t, image(t, g.imgSize, "evil", BehaveOK), "evil", 9, g.chunk)
		if seen {
			w.refuses(g, evil, device.ReasonSignature)
		} else if !w.takes(g, evil) {
			t.Error("a device that can't know better refused: then this page may promise more")
		}
	}
}

// A network that serves an old key list for the newest: nothing is taken meanwhile,
// and neither is the server bothered much.
func TestOldKeyList(t *testing.T) {
	p := newTrustees(t, 1, 1)
	w, g := trusting(t, p)
	w.list(p.roots...)
	old := w.s.latest
	w.hours(1, boot.ResetPowerOn, w.watch(g), at(device.EventUpToDate))
	leaked := p.releases
	p.releases = []ed25519.PrivateKey{keyOf(0x41)}
	p.list.Version, p.list.Keys = 2, []release.Key{{Public: public(p.releases[0]), Roles: manifest.RoleRelease}}
	w.list(p.roots...)
	frozen := 0
	w.s.mangle = func(r device.Request, a *nativeAnswer) {
		if partOf(r) == partList {
			frozen++
			a.body = old
		}
	}
	good := p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
	w.refuses(g, good, device.ReasonKeyList)
	if frozen == 0 || len(w.s.requests) > 130 {
		t.Errorf("%d frozen lists, %d requests in an hour", frozen, len(w.s.requests))
	}
	p.releases = leaked
	w.refuses(g, p.release(t, image(t, g.imgSize, "evil", BehaveOK), "evil", 9, g.chunk), device.ReasonKeyList)
	w.s.mangle = nil
	if !w.takes(g, good) {
		t.Error("not taken with the newest list")
	}
}

// Who has one device's key speaks as the server to that device, and as that device
// to the server. It makes no release, and no other device listens.
func TestOneDevicesKey(t *testing.T) {
	p := newTrustees(t, 1, 1)
	w, g := trusting(t, p)
	w.list(p.roots...)
	mine := p.releases
	p.releases = []ed25519.PrivateKey{keyOf(0x66)}
	evil := p.release(t, image(t, g.imgSize, "evil", BehaveOK), "evil", 9, g.chunk)
	w.refuses(g, evil, device.ReasonSignature)
	p.releases = mine
	good := p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
	// The same server, to a device with another key: it is nobody there.
	w.built.Secret[0] ^= 1
	if w.takes(g, good) || w.s.polls != 0 && w.s.fetched != 0 {
		t.Fatal("a device took the word of another device's key")
	}
	if _, unreachable := w.reasons(); !unreachable {
		t.Error("it did not say that no server answers")
	}
	w.built.Secret[0] ^= 1
	if !w.takes(g, good) {
		t.Error("not taken with its own key")
	}
}
