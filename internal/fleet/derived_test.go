package fleet

import (
	"crypto/ed25519"
	"fmt"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/release"
)

// derivedOf is a derived stream of signedAs's image: a patch from the image of release base,
// or the compressed image for 0. length is the file's; change may alter the sheet.
func derivedOf(t testing.TB, base uint32, length int64, change func(*release.Sheet)) Stream {
	t.Helper()
	s := &release.Sheet{ImageRoot: release.Hash{1}, Kind: manifest.StreamCompressed, Profile: 1, RAM: 15000, Length: uint32(length), Chunk: 2048, Root: release.Hash{byte(base)}}
	kind := StreamCompressed
	if base != 0 {
		kind, s.Kind, s.BaseDigest, s.BaseSize = StreamPatch, manifest.StreamPatch, release.Hash{byte(base)}, 5000
	}
	if change != nil {
		change(s)
	}
	return Stream{Digest: Digest{byte(base), byte(length), byte(length >> 8), s.Profile}, Kind: kind, Chunk: s.Chunk, Length: length, Root: Digest(s.Root), Sheet: sealFor(t, manifest.KindSheet, s)}
}

// with adds streams to a release.
func with(r SignedRelease, more ...Stream) SignedRelease {
	r.Streams = append(r.Streams, more...)
	return r
}

func TestDerivedOffer(t *testing.T) {
	patch, other, packed := derivedOf(t, 7, 400, nil), derivedOf(t, 6, 300, nil), derivedOf(t, 0, 2000, nil)
	small := derivedOf(t, 7, 500, func(s *release.Sheet) { s.Profile, s.RAM, s.Chunk = 2, 8000, 1024 })
	strange := patch
	strange.Kind = StreamCompressed
	for _, c := range []struct {
		name    string
		streams []Stream
		ask     func(*NativeAsk)
		d       Device
		verdict string // before
		dep     *Deployment
		want    *Stream
	}{
		{name: "D1 takes none", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Derived = Derived{} }},
		{name: "D1 an older format", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Derived.Version = PatchVersion - 1 }},
		{name: "D1 a newer format", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Derived.Version = 9 }, want: &patch},
		{name: "D1 another profile", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Derived.Profiles = 1 << 2 }},
		{name: "D1 the small profile", streams: []Stream{patch, small}, ask: func(a *NativeAsk) { a.Derived.Profiles = 1 << 2 }, want: &small},
		{name: "D1 too little RAM", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Derived.RAM = 14999 }},
		{name: "D1 RAM exactly", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Derived.RAM = 15000 }, want: &patch},
		{name: "D1 chunks too large", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Chunk = 2047 }},
		{name: "D2 from what it runs", streams: []Stream{patch, other, packed}, want: &patch},
		{name: "D2 from another image", streams: []Stream{other}},
		{name: "D2 it does not say what it runs", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.Image = nil }},
		{name: "D2 the compressed image then", streams: []Stream{patch, other, packed}, ask: func(a *NativeAsk) { a.Image = nil }, want: &packed},
		{name: "D3 the smallest", streams: []Stream{packed, patch, small}, ask: func(a *NativeAsk) { a.Derived.Profiles = 1<<1 | 1<<2 }, want: &patch},
		{name: "D3 no smaller than the raw one", streams: []Stream{derivedOf(t, 0, 5000, nil)}},
		{name: "D4 one failed", streams: []Stream{patch, packed}, dep: &Deployment{ReleaseID: 9, State: StateDownloading, Proven: true, RawOnly: true}},
		{name: "D4 of another release", streams: []Stream{patch}, dep: &Deployment{ReleaseID: 3, State: StateFailed, Proven: true, RawOnly: true}, want: &patch},
		{name: "D5 begun with the raw one", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.InProgress = 9 }, verdict: "newest/9"},
		{name: "D5 begun with another", streams: []Stream{patch, packed}, ask: func(a *NativeAsk) { a.InProgress = 9 }, verdict: "newest/9" + (&derivedStream{Stream: packed}).keyOf(), want: &packed},
		{name: "D5 on trial, it runs the new image", streams: []Stream{patch, packed}, ask: func(a *NativeAsk) { a.Image = nil }, verdict: "newest/9" + (&derivedStream{Stream: patch}).keyOf(),
			dep: &Deployment{ReleaseID: 9, State: StateTrial, Proven: true}, want: &patch},
		{name: "D5 on trial, by the raw one", streams: []Stream{packed}, verdict: "newest/9", dep: &Deployment{ReleaseID: 9, State: StateRebooting, Proven: true}},
		{name: "D5 another release in progress", streams: []Stream{patch}, ask: func(a *NativeAsk) { a.InProgress = 7 }, verdict: "newest/7", want: &patch},
		{name: "D5 decided, not begun", streams: []Stream{patch}, verdict: "newest/9", want: &patch},
		{name: "of another image", streams: []Stream{derivedOf(t, 7, 400, func(s *release.Sheet) { s.ImageRoot[0]++ })}},
		{name: "a sheet that is none", streams: []Stream{{Kind: StreamPatch, Length: 5, Sheet: []byte("x")}}},
		{name: "a sheet of another kind", streams: []Stream{strange}},
	} {
		o := NewNativeOffers(NativeSnapshot{Releases: []SignedRelease{with(signedAs(t, 1, 9, nil), c.streams...), signedAs(t, 1, 7, nil)}, List: listFor(t, 1, 0), Products: []string{"p"}})
		a := ask()
		running := Digest{7}
		a.Derived, a.Image = Derived{Version: PatchVersion, Profiles: 1 << 1, RAM: 16384}, running[:]
		if c.ask != nil {
			c.ask(&a)
		}
		c.d.ID, c.d.Product = "d", "p"
		n := deviceWith(c.d, c.dep)
		n.Verdict = c.verdict
		got := o.Decide(n, a, at(9), nil)
		if got.Release == nil || got.Release.ID != 9 || got.Stream.Kind != StreamRaw {
			t.Errorf("%s: %+v", c.name, got)
			continue
		}
		if (got.Derived == nil) != (c.want == nil) || got.Derived != nil && got.Derived.Digest != c.want.Digest {
			t.Errorf("%s: %+v, not %+v", c.name, got.Derived, c.want)
		}
		if c.want == nil {
			if strings.Contains(got.Why, "; as ") || got.Key != "newest/9" {
				t.Errorf("%s: %s, %s", c.name, got.Why, got.Key)
			}
			continue
		}
		what := "; as a patch from v1.7, "
		if c.want.Kind == StreamCompressed {
			what = "; as the compressed image, "
		}
		if !strings.Contains(got.Why, fmt.Sprintf("%s%d bytes of 5000", what, c.want.Sent())) || !strings.HasPrefix(got.Key, "newest/9/s") {
			t.Errorf("%s: %s, %s", c.name, got.Why, got.Key)
		}
	}
}

// A sheet counts as long as the key list lets its signer sign for the product.
func TestDerivedSigner(t *testing.T) {
	key := func(name string, roles uint8, products ...string) release.Key {
		return release.Key{Public: offerKey(name).Public().(ed25519.PublicKey), Roles: roles, Products: products}
	}
	for _, c := range []struct {
		name string
		keys []release.Key
		want bool
	}{
		{"a release key", []release.Key{key("release", manifest.RoleRelease)}, true},
		{"a stream key", []release.Key{key("other", manifest.RoleRelease), key("release", manifest.RoleStream)}, true},
		{"of this product", []release.Key{key("release", manifest.RoleStream, "p")}, true},
		{"of another product", []release.Key{key("release", manifest.RoleStream, "q")}, false},
		{"revoked", []release.Key{key("other", manifest.RoleRelease)}, false},
	} {
		l := &release.KeyList{Version: 5, Generation: 2, M: 1, Roots: []ed25519.PublicKey{offerKey("root").Public().(ed25519.PublicKey)}, Keys: c.keys,
			Products: []release.Product{{Name: "p", Threshold: 1, Epoch: 1}, {Name: "q", Threshold: 1, Epoch: 1}}}
		o := NewNativeOffers(NativeSnapshot{Releases: []SignedRelease{with(signedAs(t, 1, 9, nil), derivedOf(t, 0, 400, nil))}, Products: []string{"p"},
			List: &KeyList{Version: 5, Generation: 2, Envelope: sealFor(t, manifest.KindKeys, l)}})
		a := ask()
		a.Derived = Derived{Version: PatchVersion, Profiles: 1 << 1, RAM: 16384}
		if got := o.Decide(deviceWith(Device{ID: "d", Product: "p"}, nil), a, at(9), nil); got.Release == nil || (got.Derived != nil) != c.want {
			t.Errorf("%s: %+v", c.name, got.Derived)
		}
	}
}

// What devices say of derived streams outlives being stored.
func TestDerivedAsk(t *testing.T) {
	a := ask()
	a.Derived = Derived{Version: 1, Profiles: 6, RAM: 8192}
	if got := ParseAsk(a.Text()); got == nil || got.Derived != a.Derived {
		t.Errorf("%+v", got)
	}
	none := ask()
	if strings.Contains(none.Text(), "derived") {
		t.Error(none.Text())
	}
}

func TestShorts(t *testing.T) {
	coders := []Coder{{Profile: 1, Chunk: 2048, RAM: 15000}, {Profile: 2, Chunk: 1024, RAM: 8000}}
	draft := func(s SignedRelease) SignedRelease { s.State = ReleaseDraft; return s }
	gone := func(s SignedRelease) SignedRelease { s.State = ReleaseWithdrawn; return s }
	beta := func(s SignedRelease) SignedRelease { s.Channel = "beta"; return s }
	// says is of a device that runs an image and takes a profile.
	says := func(image byte, devices int, change func(*NativeAsk)) AskCount {
		a := ask()
		running := Digest{image}
		a.Derived, a.Image, a.Epoch, a.Sequence = Derived{Version: 1, Profiles: 1<<1 | 1<<2, RAM: 16384}, running[:], 1, uint32(image)
		if change != nil {
			change(&a)
		}
		return AskCount{Product: "p", Ask: a.Text(), Devices: devices}
	}
	small := func(a *NativeAsk) { a.Derived = Derived{Version: 1, Profiles: 1 << 2, RAM: 8192} }
	slot := func(n uint8) func(*release.Manifest) {
		return func(m *release.Manifest) { m.Image.Slot, m.Image.Digest[1] = &n, n+1 }
	}
	for _, c := range []struct {
		name     string
		releases []SignedRelease
		asks     []AskCount
		most     int
		want     string // release<base/profile:devices, in order
	}{
		{"nobody", []SignedRelease{signedAs(t, 1, 9, nil)}, nil, 4, ""},
		{"the most devices first", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, nil), says(7, 30, nil), says(5, 25, nil)}, 4, "9<5/1:35 9<7/1:30"},
		{"at most so many bases", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, nil), says(6, 3, nil), says(7, 30, nil), says(4, 2, nil)}, 2, "9<7/1:30 9<5/1:10 9<0/1:5"},
		{"images that are not held", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(100, 10, func(a *NativeAsk) { a.Sequence = 1 })}, 4, "9<0/1:10"},
		{"that don't say what they run", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, func(a *NativeAsk) { a.Image = nil })}, 4, "9<0/1:10"},
		{"by profile", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, small), says(5, 4, nil)}, 4, "9<5/2:10 9<5/1:4"},
		{"that take none", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, func(a *NativeAsk) { a.Derived = Derived{} })}, 4, ""},
		{"with small buffers", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, func(a *NativeAsk) { a.Chunk = 1024 })}, 4, "9<5/2:10"},
		{"that run it", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(9, 10, nil)}, 4, ""},
		{"that run a newer one", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(10, 10, nil)}, 4, ""},
		{"other hardware", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, func(a *NativeAsk) { a.Hardware = []byte("r3") })}, 4, ""},
		{"another product", []SignedRelease{signedAs(t, 1, 9, func(m *release.Manifest) { m.Product = "q" })}, []AskCount{says(5, 10, nil)}, 4, ""},
		{"the newest release alone", []SignedRelease{signedAs(t, 1, 8, nil), signedAs(t, 1, 9, nil)}, []AskCount{says(5, 10, nil)}, 4, "9<5/1:10"},
		{"not what is withdrawn", []SignedRelease{signedAs(t, 1, 8, nil), gone(signedAs(t, 1, 9, nil))}, []AskCount{says(5, 10, nil)}, 4, "8<5/1:10"},
		{"a draft, before it is published", []SignedRelease{draft(signedAs(t, 1, 9, nil))}, []AskCount{says(5, 10, nil)}, 4, "9<5/1:10"},
		{"of each channel", []SignedRelease{signedAs(t, 1, 8, nil), beta(signedAs(t, 1, 9, nil))}, []AskCount{says(5, 10, nil)}, 4, "9<5/1:10 8<5/1:10"},
		{"the build for its slot", []SignedRelease{signedAs(t, 1, 9, slot(0)), func() SignedRelease { s := signedAs(t, 1, 9, slot(1)); s.ID = 19; return s }()},
			[]AskCount{says(5, 10, nil), says(5, 3, func(a *NativeAsk) { a.Running = 1 })}, 4, "19<5/1:10 9<5/1:3"},
		{"what is there already", []SignedRelease{with(signedAs(t, 1, 9, nil), derivedOf(t, 5, 400, nil))}, []AskCount{says(5, 10, nil), says(6, 3, nil)}, 4, "9<6/1:3"},
		{"what is there in another profile", []SignedRelease{with(signedAs(t, 1, 9, nil), derivedOf(t, 5, 400, nil))}, []AskCount{says(5, 10, small)}, 4, "9<5/2:10"},
		{"the compressed image is there", []SignedRelease{with(signedAs(t, 1, 9, nil), derivedOf(t, 0, 400, nil))}, []AskCount{says(100, 10, func(a *NativeAsk) { a.Sequence = 1 })}, 4, ""},
		{"words that can't be read", []SignedRelease{signedAs(t, 1, 9, nil)}, []AskCount{{Product: "p", Ask: "{", Devices: 3}}, 4, ""},
	} {
		o := NewNativeOffers(NativeSnapshot{Releases: c.releases, List: listFor(t, 1, 0), Products: []string{"p"}})
		var got []string
		for _, s := range o.Shorts(c.asks, func(d Digest) bool { return d[0] < 100 }, coders, c.most) {
			got = append(got, fmt.Sprintf("%d<%d/%d:%d", s.Release, s.Base[0], s.Profile, s.Devices))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
