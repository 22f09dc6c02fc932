package fleet

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/release"
)

func offerKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("runnel test key, known to everybody: " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func sealFor(t testing.TB, kind manifest.Kind, e interface{ Encode() ([]byte, error) }) []byte {
	t.Helper()
	p, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	env, err := release.Sign(context.Background(), kind, p, release.NewKeySigner(offerKey("release")))
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// signedAs is a release with sequence as id, of 5,000 bytes, with chunks of 1,024 and 4,096.
func signedAs(t testing.TB, epoch, sequence uint32, change func(*release.Manifest)) SignedRelease {
	t.Helper()
	m := &release.Manifest{Product: "p", Hardware: [][]byte{[]byte("r1"), []byte("r2")}, Version: fmt.Sprint("v", epoch, ".", sequence), Epoch: epoch, Sequence: sequence, SecurityVersion: 2,
		Confirm: release.Confirm{Contact: true, Seconds: 60},
		Image: release.Image{Component: "app", Format: manifest.FormatRaw, Digest: release.Hash{byte(sequence)}, Size: 5000,
			Streams: []release.Raw{{Chunk: 1024, Root: release.Hash{1}}, {Chunk: 4096, Root: release.Hash{4}}}}}
	if change != nil {
		change(m)
	}
	r := SignedRelease{Envelope: sealFor(t, manifest.KindManifest, m), Release: Release{ID: int64(sequence), Product: m.Product, Version: m.Version, State: ReleasePublished, ChunkSize: 1024,
		Epoch: m.Epoch, Sequence: m.Sequence, Image: Image{Digest: Digest(m.Image.Digest), Size: 5000}}}
	for _, raw := range m.Image.Streams {
		r.Streams = append(r.Streams, Stream{Digest: Digest{byte(raw.Chunk >> 8)}, Kind: StreamRaw, Chunk: raw.Chunk, Length: 5000, Root: Digest(raw.Root)})
	}
	// Of the same image issued otherwise: a root that is not signed, a kind that is no image.
	r.Streams = append(r.Streams, Stream{Digest: Digest{99}, Kind: StreamRaw, Chunk: 2048, Root: Digest{9}}, Stream{Digest: Digest{98}, Kind: StreamRaw, Chunk: 1024, Root: Digest{9}},
		Stream{Digest: Digest{97}, Kind: StreamPatch, Chunk: 4096, Root: Digest{4}})
	return r
}

func listFor(t testing.TB, epoch, floor uint32) *KeyList {
	l := &release.KeyList{Version: 5, Generation: 2, M: 1, Roots: []ed25519.PublicKey{offerKey("root").Public().(ed25519.PublicKey)},
		Keys:     []release.Key{{Public: offerKey("release").Public().(ed25519.PublicKey), Roles: manifest.RoleRelease}},
		Products: []release.Product{{Name: "p", Threshold: 1, Epoch: epoch, Floor: floor}}}
	return &KeyList{Version: 5, Generation: 2, Envelope: sealFor(t, manifest.KindKeys, l)}
}

func ask() NativeAsk {
	return NativeAsk{Wire: WireSigned, Hardware: []byte("r2"), Slots: []uint32{8192, 8192}, Running: 0, Envelope: 1400, Chunk: 4096, SecurityVersion: 1}
}

func TestNativeDecide(t *testing.T) {
	r := func(sequence uint32, change func(*release.Manifest)) SignedRelease {
		return signedAs(t, 1, sequence, change)
	}
	withdrawn := func(s SignedRelease) SignedRelease { s.State = ReleaseWithdrawn; return s }
	dep := func(id int64, s DeploymentState) *Deployment {
		return &Deployment{Device: "d", ReleaseID: id, State: s, Proven: true, Reason: "because", StartedAt: at(1), UpdatedAt: at(2)}
	}
	esp := func(m *release.Manifest) { m.Image.Format, m.Image.Chip = manifest.FormatESP, 5 }
	slot1, address := uint8(1), uint32(0x10000)
	for _, c := range []struct {
		name     string
		releases []SignedRelease
		list     *KeyList
		d        Device
		dep      *Deployment
		ask      func(*NativeAsk)
		verdict  Verdict
		release  int64  // 0: none
		chunk    uint32 // of its stream
		why      string
	}{
		{name: "nothing", verdict: VerdictNoRelease, why: "no signed release of p"},
		{name: "F1 the newest by sequence, not by order", releases: []SignedRelease{r(7, nil), r(9, nil), r(8, nil)}, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "F1 epoch before sequence", releases: []SignedRelease{r(9, nil), signedAs(t, 2, 3, nil)}, list: listFor(t, 2, 0), verdict: VerdictNewest, release: 3, chunk: 4096},
		{name: "F1 withdrawn", releases: []SignedRelease{r(7, nil), withdrawn(r(9, nil))}, verdict: VerdictNewest, release: 7, chunk: 4096},
		{name: "F1 all withdrawn", releases: []SignedRelease{withdrawn(r(9, nil))}, verdict: VerdictNoRelease},
		{name: "F1 another product's", releases: []SignedRelease{r(9, func(m *release.Manifest) { m.Product = "q" })}, verdict: VerdictNoRelease},
		{name: "F1 its hardware's newest", releases: []SignedRelease{r(7, nil), r(9, func(m *release.Manifest) { m.Hardware = [][]byte{[]byte("r")} })}, verdict: VerdictNewest, release: 7, chunk: 4096},
		{name: "F1 other hardware", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Hardware = []byte("R2") }, verdict: VerdictHardware},
		{name: "F1 confirmed", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Epoch, a.Sequence = 1, 9 }, verdict: VerdictConfirmed},
		{name: "F1 confirmed after it failed", releases: []SignedRelease{r(9, nil)}, dep: dep(9, StateFailed), ask: func(a *NativeAsk) { a.Epoch, a.Sequence = 1, 9 }, verdict: VerdictConfirmed},
		{name: "F1 confirmed a newer one", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Epoch, a.Sequence = 1, 10 }, verdict: VerdictConfirmed},
		{name: "F1 confirmed in a higher epoch", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Epoch, a.Sequence = 2, 1 }, verdict: VerdictConfirmed},
		{name: "F1 above the confirmed", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Epoch, a.Sequence = 1, 8 }, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "F2 failed", releases: []SignedRelease{r(7, nil), r(9, nil)}, dep: dep(9, StateFailed), verdict: VerdictFoundBad, why: "failed here (because)"},
		{name: "F2 reverted", releases: []SignedRelease{r(9, nil)}, dep: dep(9, StateReverted), verdict: VerdictFoundBad},
		{name: "F2 skipped", releases: []SignedRelease{r(9, nil)}, dep: dep(9, StateSkipped), verdict: VerdictSkipped},
		{name: "F2 cancelled", releases: []SignedRelease{r(9, nil)}, dep: dep(9, StateCancelled), verdict: VerdictCancelled},
		{name: "F2 unproven is no verdict", releases: []SignedRelease{r(9, nil)}, dep: dep(9, StateUnproven), verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "F2 on its way", releases: []SignedRelease{r(9, nil)}, dep: dep(9, StateTrial), verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "F2 not proven", releases: []SignedRelease{r(9, nil)}, dep: &Deployment{ReleaseID: 9, State: StateFailed}, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "F2 by order", releases: []SignedRelease{r(9, nil)}, d: Device{RetryAt: at(3)}, dep: dep(9, StateFailed), verdict: VerdictRetry, release: 9, chunk: 4096},
		{name: "F4 while it goes back", releases: []SignedRelease{r(9, nil)}, d: Device{RollbackWanted: true, RollbackReason: "hot"}, verdict: VerdictReverting, why: "hot"},
		{name: "F5 small buffer", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Chunk = 4095 }, verdict: VerdictNewest, release: 9, chunk: 1024},
		{name: "F5 too small", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Chunk = 1023 }, verdict: VerdictUnfit},
		{name: "no such stream here", releases: []SignedRelease{func() SignedRelease { s := r(9, nil); s.Streams = s.Streams[2:]; return s }()}, verdict: VerdictUnfit, why: "no stream"},
		{name: "envelope", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Envelope = 200 }, verdict: VerdictUnfit, why: "device takes 200"},
		{name: "slot too small", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Slots = []uint32{8192, 4999} }, verdict: VerdictUnfit},
		{name: "slot exactly", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Slots = []uint32{1, 5000} }, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "one slot, and it runs", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Slots = []uint32{8192} }, verdict: VerdictUnfit, why: "no slot"},
		{name: "one slot, from factory", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.Slots, a.Running = []uint32{8192}, FactoryImage }, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "for the other slot", releases: []SignedRelease{r(9, func(m *release.Manifest) { m.Image.Slot = &slot1 })}, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "for the slot that runs", releases: []SignedRelease{r(9, func(m *release.Manifest) { m.Image.Slot = &slot1 })}, ask: func(a *NativeAsk) { a.Running = 1 }, verdict: VerdictUnfit},
		{name: "an address, which polls don't say", releases: []SignedRelease{r(9, func(m *release.Manifest) { m.Image.Address = &address })}, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "ESP for ESP", releases: []SignedRelease{r(9, esp)}, ask: func(a *NativeAsk) { a.ESP, a.Chip = true, 5 }, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "another chip", releases: []SignedRelease{r(9, esp)}, ask: func(a *NativeAsk) { a.ESP, a.Chip = true, 9 }, verdict: VerdictUnfit},
		{name: "raw for ESP", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.ESP, a.Chip = true, 5 }, verdict: VerdictUnfit},
		{name: "the device's floor", releases: []SignedRelease{r(9, nil)}, ask: func(a *NativeAsk) { a.SecurityVersion = 3 }, verdict: VerdictUnfit},
		{name: "the list's floor", releases: []SignedRelease{r(9, nil)}, list: listFor(t, 1, 3), verdict: VerdictUnfit},
		{name: "the list's floor, met", releases: []SignedRelease{r(9, nil)}, list: listFor(t, 1, 2), verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "the list's epoch", releases: []SignedRelease{r(9, nil)}, list: listFor(t, 2, 0), verdict: VerdictUnfit},
		{name: "no list", releases: []SignedRelease{r(9, nil)}, list: &KeyList{}, verdict: VerdictUnfit, why: "key list"},
		{name: "no list, believes by MAC", releases: []SignedRelease{r(9, nil)}, list: &KeyList{}, ask: func(a *NativeAsk) { a.Wire = WireMACOnly }, verdict: VerdictNewest, release: 9, chunk: 4096},
		{name: "a list, believes by MAC", releases: []SignedRelease{r(9, nil)}, list: listFor(t, 2, 0), ask: func(a *NativeAsk) { a.Wire = WireMACOnly }, verdict: VerdictUnfit},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := NativeSnapshot{Generation: 1, Releases: c.releases, List: c.list, Products: []string{"p"}}
			switch {
			case s.List == nil:
				s.List = listFor(t, 1, 0)
			case s.List.Version == 0:
				s.List = nil
			}
			o := NewNativeOffers(s)
			a := ask()
			if c.ask != nil {
				c.ask(&a)
			}
			c.d.ID, c.d.Product = "d", "p"
			got := o.Decide(deviceWith(c.d, c.dep), a, at(9), nil)
			if want := o.Wanted("p", a).Releases; c.dep != nil && !slices.Contains(want, c.dep.ReleaseID) {
				// What a poll does not read decides nothing.
				if without := o.Decide(deviceWith(c.d, nil), a, at(9), nil); without.Key != got.Key || without.Why != got.Why || len(want) > 0 {
					t.Errorf("without the deployment: %+v\nwith it: %+v", without, got)
				}
			}
			if got.Verdict != c.verdict || got.Why == "" || !strings.Contains(got.Why, c.why) || got.Key == "" {
				t.Errorf("%s: %s (%s), want %s", got.Verdict, got.Why, got.Key, c.verdict)
			}
			if (got.Release == nil) != (c.release == 0) || got.Release != nil && (got.Release.ID != c.release || got.Stream.Chunk != c.chunk || got.Stream.Root != Digest{byte(c.chunk >> 10)}) {
				t.Errorf("release %+v, stream %+v", got.Release, got.Stream)
			}
			if (got.Retry != nil) != (c.verdict == VerdictRetry) || (got.Revert != 0) != (c.verdict == VerdictReverting) || got.Cancel != 0 {
				t.Errorf("%+v", got)
			}
		})
	}
}

// F3: by the sequence that the device says; of two epochs the later.
func TestNativeCancel(t *testing.T) {
	gone := func(s SignedRelease) SignedRelease { s.State = ReleaseWithdrawn; return s }
	for _, c := range []struct {
		name     string
		releases []SignedRelease
		progress uint32
		cancel   uint32
	}{
		{"nothing in progress", []SignedRelease{gone(signedAs(t, 1, 9, nil))}, 0, 0},
		{"withdrawn", []SignedRelease{gone(signedAs(t, 1, 9, nil))}, 9, 9},
		{"published", []SignedRelease{signedAs(t, 1, 9, nil)}, 9, 0},
		{"not known", []SignedRelease{signedAs(t, 1, 9, nil)}, 8, 0},
		{"withdrawn in the epoch before", []SignedRelease{gone(signedAs(t, 1, 9, nil)), signedAs(t, 2, 9, nil)}, 9, 0},
		{"withdrawn in the later epoch", []SignedRelease{signedAs(t, 1, 9, nil), gone(signedAs(t, 2, 9, nil))}, 9, 9},
		{"another product's", []SignedRelease{gone(signedAs(t, 1, 9, func(m *release.Manifest) { m.Product = "q" }))}, 9, 0},
	} {
		o := NewNativeOffers(NativeSnapshot{Releases: c.releases, List: listFor(t, 1, 0)})
		a := ask()
		a.InProgress = c.progress
		if got := o.Decide(deviceWith(Device{Product: "p"}, nil), a, at(0), nil); got.Cancel != c.cancel {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

func TestNewNativeOffersDamaged(t *testing.T) {
	good, bad, worse := signedAs(t, 1, 7, nil), signedAs(t, 1, 8, nil), signedAs(t, 1, 9, nil)
	bad.Envelope = bad.Envelope[:50]
	worse.Envelope = listFor(t, 1, 0).Envelope // a key list is no manifest
	o := NewNativeOffers(NativeSnapshot{Releases: []SignedRelease{good, bad, worse}, List: listFor(t, 1, 0)})
	if fmt.Sprint(o.Damaged) != "[8 9]" || fmt.Sprint(o.Wanted("p", ask()).Releases) != "[7]" || len(o.Wanted("p", NativeAsk{Hardware: []byte("r3")}).Releases) != 0 {
		t.Errorf("%v %v", o.Damaged, o.Wanted("p", ask()).Releases)
	}
	// A list that can't be read names no product.
	o = NewNativeOffers(NativeSnapshot{Releases: []SignedRelease{good}, List: &KeyList{Version: 1, Envelope: []byte("x")}})
	if got := o.Decide(deviceWith(Device{Product: "p"}, nil), ask(), at(0), nil); got.Verdict != VerdictUnfit {
		t.Errorf("%+v", got)
	}
}

func TestNativeChanges(t *testing.T) {
	known := NativeFacts{RunningVersion: "1.0", Hardware: "r2", Epoch: 1, Sequence: 2, SecurityVersion: 3, ListVersion: 4}
	base := NativeDevice{Device: Device{ID: "d", StrongestWire: WireSigned, RunningVersion: "1.0", Hardware: "r2", Epoch: 1, Sequence: 2, SecurityVersion: 3, ListVersion: 4},
		Boot: 5, Verdict: "newest/7"}
	offer := NativeDecision{Verdict: VerdictNewest, Key: "newest/7", Why: "why", Known: true, Release: &SignedRelease{Release: Release{ID: 7, Version: "2.0"}}}
	for _, c := range []struct {
		name   string
		d      func(*NativeDevice)
		f      func(*NativeFacts)
		o      func(*NativeDecision)
		wire   Wire
		boot   uint32
		keys   []uint8
		needed bool
		check  func(NativeChange) bool
	}{
		{name: "idle"},
		{name: "the next boot", boot: 6},
		{name: "says no version", f: func(f *NativeFacts) { f.RunningVersion = "" }},
		{name: "another version", f: func(f *NativeFacts) { f.RunningVersion = "2.0" }, needed: true, check: func(c NativeChange) bool { return c.Facts.RunningVersion == "2.0" }},
		{name: "a list", f: func(f *NativeFacts) { f.ListVersion = 9 }, needed: true},
		{name: "a stronger wire", d: func(d *NativeDevice) { d.StrongestWire = WireV1 }, needed: true, check: func(c NativeChange) bool { return c.Wire == WireSigned && len(c.Events) == 1 }},
		{name: "boots begin anew", boot: 4, needed: true, check: func(c NativeChange) bool { return c.Restarted }},
		{name: "another verdict", d: func(d *NativeDevice) { d.Verdict = "confirmed/3" }, needed: true,
			check: func(c NativeChange) bool {
				return c.Verdict == "newest/7" && c.Events[0].Version == "2.0" && c.Offered == 0
			}},
		{name: "offered first", d: func(d *NativeDevice) { d.Verdict = "" }, o: func(o *NativeDecision) { o.Known = false }, needed: true, check: func(c NativeChange) bool { return c.Offered == 7 }},
		{name: "an order, first time", o: func(o *NativeDecision) { o.Revert = 1 }, needed: true, check: func(c NativeChange) bool { return c.RevertTold }},
		{name: "an order, told", d: func(d *NativeDevice) { d.RollbackSentAt = at(1) }, o: func(o *NativeDecision) { o.Revert = 1 }},
		{name: "the older of two keys", keys: []uint8{3, 4}},
		{name: "the newer of two keys", keys: []uint8{2, 3}, needed: true},
	} {
		d, f, o := base, known, offer
		if c.d != nil {
			c.d(&d)
		}
		if c.f != nil {
			c.f(&f)
		}
		if c.o != nil {
			c.o(&o)
		}
		if c.boot == 0 {
			c.boot = 5
		}
		if c.keys == nil {
			c.keys = []uint8{3}
		}
		got, needed := NativeChanges(&d, f, WireSigned, o, c.boot, 3, c.keys, at(9))
		if needed != c.needed || c.check != nil && !c.check(got) || got.Facts.RunningVersion == "" || got.Wire != WireSigned {
			t.Errorf("%s: %v %+v", c.name, needed, got)
		}
	}
	weak, needed := NativeRefusal(&base, WireMACOnly, 5, at(9))
	if !needed || weak.Wire != WireSigned || weak.Facts != known || len(weak.Events) != 1 {
		t.Errorf("%+v", weak)
	}
	base.Verdict = weak.Verdict
	if _, needed := NativeRefusal(&base, WireMACOnly, 6, at(9)); needed {
		t.Error("noted again")
	}
}

func TestHardwareText(t *testing.T) {
	for in, want := range map[string]string{"r2": "r2", "\x00\x01": "0001", "a\x1b": "611b", "": "", "ä": "c3a4"} {
		if got := HardwareText([]byte(in)); got != want {
			t.Errorf("%q: %q", in, got)
		}
	}
}

// deviceWith is a device as a poll reads it.
func deviceWith(d Device, dep *Deployment) *NativeDevice {
	n := &NativeDevice{Device: d}
	if dep != nil {
		n.Deployments = []Deployment{*dep}
	}
	return n
}
