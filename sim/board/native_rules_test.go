package board

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/nor"
)

// half runs a board to the middle of a download of B and forgets what was counted.
func half(t *testing.T, g geometry) (*nativeWorld, *nativeRelease) {
	t.Helper()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	rel := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 5, g.chunk)
	w.s.put(rel)
	w.runTo(boot.ResetPowerOn, 100, past(30000))
	w.forget()
	return w, rel
}

func (w *nativeWorld) forget() { w.events, w.s.fetched, w.s.reports, w.s.requests = nil, 0, nil, nil }

func (w *nativeWorld) saw(k device.EventKind, r device.Reason) (device.Event, bool) {
	return (&world{events: w.events}).saw(k, r)
}

// install has the board take a release, until the server knows that it confirmed it.
func (w *nativeWorld) install(r *nativeRelease) {
	w.t.Helper()
	w.s.put(r)
	confirmed := false
	w.runTo(boot.ResetPowerOn, 200, func(e device.Event) bool {
		confirmed = confirmed || e.Kind == device.EventConfirmed
		return confirmed && e.Kind == device.EventReported
	})
	if !confirmed || w.up.State().Confirmed.Digest != r.m.Image.Digest {
		w.t.Fatalf("%s was not confirmed: %v", r.m.Version, w.events)
	}
}

// targetIs checks that ota_1 runs and holds the image.
func (w *nativeWorld) targetIs(img []byte) {
	w.t.Helper()
	if w.run != 1 || !bytes.HasPrefix(w.slot(1), img) {
		w.t.Fatalf("slot %d runs; last events %v", w.run, w.events[max(0, len(w.events)-12):])
	}
}

// What the journal says is a hint: one that lies costs time, never a wrong byte.
func TestJournalThatLies(t *testing.T) {
	for _, c := range []struct {
		name           string
		written, limit uint32 // what the entry says; bytes that may be fetched
	}{
		{"nothing was written", 0, 66000},
		{"less was written", 8192, 60000},
		{"more was written", 45056, 66000},
		{"all was written", 64000, 66000},
		{"more than there is", 1 << 30, 66000},
	} {
		g := standard()
		w, rel := half(t, g)
		if err := w.b.forgeJournal(c.written); err != nil {
			t.Fatal(err)
		}
		w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
		w.targetIs(rel.image)
		if w.s.fetched > int(c.limit)+3*4224 {
			t.Errorf("%s: %d bytes fetched", c.name, w.s.fetched)
		}
	}
}

// forgeJournal makes every entry of the journal say that so much is written.
func (b *Board) forgeJournal(written uint32) error {
	t, err := b.Table()
	if err != nil {
		return err
	}
	p := t.Find(esp32.TypeRunnel, esp32.SubtypeJournal)
	for s := uint32(0); s < 2; s++ {
		sector := make([]byte, 4096)
		if err := b.Chip.ReadAt(sector, p.Offset+s*4096); err != nil {
			return err
		}
		forgeEntries(sector, written)
		if err := b.Chip.Load(p.Offset+s*4096, sector); err != nil {
			return err
		}
	}
	return nil
}

// forgeEntries rewrites whole entries (docs/format/state.md), CRCs included.
func forgeEntries(sector []byte, written uint32) {
	le := binary.LittleEndian
	head := le.Uint32(sector[60:])
	for e := sector[64:]; len(e) >= 16; e = e[16:] {
		if le.Uint32(e[12:]) != crc32.Update(head, crc32.IEEETable, e[:12]) {
			continue
		}
		le.PutUint32(e, written)
		le.PutUint32(e[12:], crc32.Update(head, crc32.IEEETable, e[:12]))
	}
}

// Flipped bits in flash, wherever they are, are found by the walk.
func TestFlippedBitsBeforeResume(t *testing.T) {
	for _, off := range []uint32{0, 1023, 12345, 29000} {
		for _, noJournal := range []bool{false, true} {
			g := standard()
			g.noJrnl = noJournal
			if noJournal {
				g.imgSize = g.slotSize - 4096
			}
			w, rel := half(t, g)
			at0 := 0x10000 + uint32(g.slotSize) + off
			if err := w.b.Chip.Load(at0, []byte{w.b.Chip.Raw()[at0] ^ 0x20}); err != nil {
				t.Fatal(err)
			}
			w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
			w.targetIs(rel.image)
		}
	}
}

// The hash before the resume point comes from the network and is believed by nobody.
func TestGarbageHash(t *testing.T) {
	for _, times := range []int{1, 100} {
		g := standard()
		w, rel := half(t, g)
		left := times
		w.s.mangle = func(r device.Request, a *nativeAnswer) {
			if a.data && r.From > 0 && left > 0 && len(a.body) >= 32 && w.up.Status().Phase == "proving what is in flash" {
				left--
				copy(a.body, bytes.Repeat([]byte{0xA5}, 32))
			}
		}
		w.runTo(boot.ResetPowerOn, 300, at(device.EventConfirmed))
		w.targetIs(rel.image)
		if times == 1 && w.s.fetched > len(rel.stream)-30*1056+3*4224 {
			t.Errorf("one garbled hash cost %d bytes", w.s.fetched)
		}
	}
}

// Another release under the same digest of its stream, or in the slot, proves
// nothing: the walk does not end at the root.
func TestSwappedRelease(t *testing.T) {
	g := standard()
	w, _ := half(t, g)
	c := w.p.release(t, image(t, g.imgSize, "C", BehaveOK), "C", 6, g.chunk)
	w.s.put(c)
	w.runTo(boot.ResetPowerOn, 300, at(device.EventConfirmed))
	w.targetIs(c.image)
	if w.s.fetched > len(c.stream)+64 {
		t.Errorf("%d bytes fetched of %d", w.s.fetched, len(c.stream))
	}
}

// A torn last sector, without a journal: the probe finds it, the walk proves what is
// before it.
func TestTornSectorWithoutJournal(t *testing.T) {
	g := standard()
	g.noJrnl, g.imgSize = true, g.slotSize-4096
	for _, tear := range []int{0, 1, 2, 3, 4} {
		w := newNativeWorld(t, g, image(t, 4096, "A", BehaveOK))
		rel := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
		w.s.put(rel)
		n := 0
		w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
			if op.Kind != nor.Program || op.Off < 0x10000+uint32(g.slotSize) {
				return nor.Cut{}
			}
			if n++; n != 150 { // a page in the middle of a sector
				return nor.Cut{}
			}
			return tearOf(op, tear, g)
		})
		if err := w.b.Run(t.Context(), boot.ResetPowerOn, w.app(100)); !errors.Is(err, ErrPowerCut) {
			t.Fatal(err)
		}
		w.b.Chip.PowerOn()
		w.forget()
		w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
		w.targetIs(rel.image)
		if done := 150 * 256; w.s.fetched > len(rel.stream)-done+2*4224+64 {
			t.Errorf("tear %d: %d bytes fetched of %d with %d in flash", tear, w.s.fetched, len(rel.stream), done)
		}
	}
}

// Everything that a manifest says is held against the device before the first erase.
func TestRefusedBeforeTheFirstErase(t *testing.T) {
	sixteen := uint8(15)
	elsewhere := uint32(0x300000)
	for _, c := range []struct {
		name   string
		change func(*release.Manifest)
		reason device.Reason
	}{
		{"product", func(m *release.Manifest) { m.Product = "test/other" }, device.ReasonProduct},
		{"hardware", func(m *release.Manifest) { m.Hardware = [][]byte{[]byte("esp32s3")} }, device.ReasonHardware},
		{"format", func(m *release.Manifest) { m.Image.Format, m.Image.Chip = manifest.FormatRaw, 0 }, device.ReasonHardware},
		{"chip", func(m *release.Manifest) { m.Image.Chip = 9 }, device.ReasonHardware},
		{"epoch", func(m *release.Manifest) { m.Epoch = 1 }, device.ReasonEpoch},
		{"slot", func(m *release.Manifest) { m.Image.Slot = &sixteen }, device.ReasonSlot},
		{"address", func(m *release.Manifest) { m.Image.Address = &elsewhere }, device.ReasonSlot},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := standard()
			w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
			if c.name == "product" {
				w.p.list.Products = append(w.p.list.Products, release.Product{Name: "test/other", Threshold: 1})
				w.p.list.Version++
				w.list(w.p.roots...)
			}
			w.s.put(w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk, c.change))
			w.refused(c.reason)
		})
	}
	t.Run("size", func(t *testing.T) {
		g := standard()
		w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
		w.s.put(w.p.release(t, image(t, g.slotSize+16, "B", BehaveOK), "B", 1, g.chunk))
		w.refused(device.ReasonTooLarge)
	})
	t.Run("chunk size", func(t *testing.T) {
		g := standard()
		w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
		w.s.put(w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, 4096))
		w.refused(device.ReasonChunkSize)
	})
	t.Run("no signature that counts", func(t *testing.T) {
		g := standard()
		w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
		w.p.releases = []ed25519.PrivateKey{keyOf(0x66)}
		w.s.put(w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk))
		w.refused(device.ReasonSignature)
	})
	t.Run("a flipped bit in the manifest", func(t *testing.T) {
		g := standard()
		w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
		r := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
		r.envelope[len(r.envelope)/2] ^= 1 // by the server itself: the digest fits
		w.s.put(r)
		w.runTo(boot.ResetPowerOn, 30, never)
		if w.run != 0 || w.s.fetched != 0 {
			t.Errorf("slot %d runs, %d bytes fetched", w.run, w.s.fetched)
		}
	})
}

// refused runs the board and checks that nothing of a slot was erased, and that the
// server knows why.
func (w *nativeWorld) refused(r device.Reason) {
	w.t.Helper()
	slot0, slot1 := w.slot(0), w.slot(1)
	w.runTo(boot.ResetPowerOn, 30, never)
	if w.run != 0 || !bytes.Equal(slot0, w.slot(0)) || !bytes.Equal(slot1, w.slot(1)) || w.s.fetched != 0 {
		w.t.Fatalf("slot %d runs, %d bytes fetched", w.run, w.s.fetched)
	}
	if _, ok := w.saw(device.EventFailed, r); !ok {
		w.t.Errorf("%q was not said: %v", r, w.events)
	}
	if r != device.ReasonSignature && !w.s.said(native.StateFailed, r) {
		w.t.Errorf("%q was not reported: %+v", r, w.s.reports)
	}
}

// Floors rise at confirm only: a release that goes back raises nothing, and what is
// below what was confirmed is refused.
func TestFloorsRiseAtConfirm(t *testing.T) {
	g := standard()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	security := func(v uint32) func(*release.Manifest) {
		return func(m *release.Manifest) { m.SecurityVersion = v }
	}
	w.s.put(w.p.release(t, image(t, g.imgSize, "X", BehavePanic), "X", 9, g.chunk, security(9)))
	w.runTo(boot.ResetPowerOn, 200, at(device.EventReported))
	w.runTo(boot.ResetPowerOn, 30, never)
	if f := w.up.State().Floors; w.run != 0 || f.Stamp != 0 || f.Security != 0 {
		t.Fatalf("slot %d runs, floors %+v after a release that crashed", w.run, f)
	}
	w.s.put(w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 10, g.chunk, security(3)))
	w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
	w.runTo(boot.ResetPowerOn, 5, never)
	if f := w.up.State().Floors; f.Stamp != 10 || f.Security != 3 {
		t.Fatalf("floors %+v after the confirm", f)
	}
	w.forget()
	for _, c := range []struct {
		sequence, security uint32
		reason             device.Reason
	}{{9, 3, device.ReasonSequence}, {11, 2, device.ReasonSecurity}} {
		w.s.put(w.p.release(t, image(t, g.imgSize, "C", BehaveOK), "C", c.sequence, g.chunk, security(c.security)))
		w.runTo(boot.ResetPowerOn, 30, never)
		if _, ok := w.saw(device.EventFailed, c.reason); !ok || w.run != 1 || w.s.fetched != 0 {
			t.Errorf("sequence %d, security %d: slot %d runs, events %v", c.sequence, c.security, w.run, w.events)
		}
	}
}

// Key lists: the held state, and what follows it.
func TestKeyListRotation(t *testing.T) {
	g := standard()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	w.built.Verifier = nil // the chip's
	w.runTo(boot.ResetPowerOn, 10, never)
	if w.up.State().BootCount == 0 || w.trusts() != 1 {
		t.Fatalf("list %d is held, not 1", w.trusts())
	}
	// Generations 2 and 3, each signed by the roots before and by its own; the board
	// sleeps through both.
	for gen := byte(2); gen <= 3; gen++ {
		old := w.p.roots
		w.p.roots = []ed25519.PrivateKey{keyOf(0x10 * gen)}
		w.p.list.Generation, w.p.list.Version = uint32(gen), w.p.list.Version+1
		w.p.list.Roots = []ed25519.PublicKey{public(w.p.roots[0])}
		w.list(append(append([]ed25519.PrivateKey{}, old...), w.p.roots...)...)
	}
	// A list of generation 3 that revokes the release key and names another.
	stolen := w.p.releases
	w.p.releases = []ed25519.PrivateKey{keyOf(0x41)}
	w.p.list.Keys[0].Public = public(w.p.releases[0])
	w.p.list.Version++
	w.list(w.p.roots...)
	good := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
	w.p.releases = stolen
	w.s.put(w.p.release(t, image(t, g.imgSize, "evil", BehaveOK), "evil", 2, g.chunk))
	w.runTo(boot.ResetPowerOn, 60, never)
	if w.trusts() != w.p.trust.Version || w.run != 0 || w.s.fetched != 0 {
		t.Fatalf("list %d is held, not %d; slot %d runs", w.trusts(), w.p.trust.Version, w.run)
	}
	if _, ok := w.saw(device.EventFailed, device.ReasonSignature); !ok {
		t.Error("a revoked key signed, and nothing was said")
	}
	w.s.put(good)
	w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
	w.targetIs(good.image)
}

// trusts is the version of the key list that the board's flash holds.
func (w *nativeWorld) trusts() uint32 {
	w.t.Helper()
	table, err := w.b.Table()
	if err != nil {
		w.t.Fatal(err)
	}
	area, err := w.b.area(&table, esp32.TypeRunnel, esp32.SubtypeState)
	if err != nil {
		w.t.Fatal(err)
	}
	s, err := state.NewSectors(area)
	if err != nil {
		w.t.Fatal(err)
	}
	var r state.Record
	if err := s.Load(&r, make([]byte, state.BufferSize)); err != nil {
		w.t.Fatal(err)
	}
	var held manifest.Trust
	if s.TrustLen() == 0 || held.Load(&s, make([]byte, manifest.TrustHeaderSize)) != 0 {
		return 0
	}
	return held.Version
}

// A list that the held roots did not sign is refused, and with it everything else.
func TestForgedKeyList(t *testing.T) {
	g := standard()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	w.built.Verifier = nil // the chip's
	w.runTo(boot.ResetPowerOn, 10, never)
	forger := newTrustees(t, 1, 1)
	forger.roots = []ed25519.PrivateKey{keyOf(0x99)}
	forger.list.Roots = []ed25519.PublicKey{public(forger.roots[0])}
	forger.list.Version = 7
	forger.trust, _ = release.TrustRoots(1, 1, forger.list.Roots...)
	w.s.latest = forger.publish(t, forger.roots...)
	w.s.trust = forger.trust
	w.s.put(forger.release(t, image(t, g.imgSize, "evil", BehaveOK), "evil", 1, g.chunk))
	w.runTo(boot.ResetPowerOn, 40, never)
	if w.trusts() != 1 || w.s.fetched != 0 || w.run != 0 {
		t.Errorf("list %d is held, %d bytes fetched", w.trusts(), w.s.fetched)
	}
	if _, ok := w.saw(device.EventFailed, device.ReasonKeyList); !ok {
		t.Errorf("not said: %v", w.events)
	}
}

// A list that comes in the middle of a download, and revokes the key that signed it,
// ends it before the switch.
func TestRevokedBeforeTheSwitch(t *testing.T) {
	g := standard()
	w, _ := half(t, g)
	revoked := false
	w.s.mangle = func(r device.Request, a *nativeAnswer) {
		if a.data && !revoked {
			revoked = true // while the last part is on its way
			w.p.list.Keys[0].Public = public(keyOf(0x41))
			w.p.list.Version++
			w.list(w.p.roots...)
		}
	}
	w.runTo(boot.ResetPowerOn, 100, never)
	if !revoked || w.run != 0 {
		t.Fatalf("slot %d runs", w.run)
	}
	if _, ok := w.saw(device.EventStaged, 0); ok {
		t.Error("staged with a revoked signature")
	}
	if _, ok := w.saw(device.EventFailed, device.ReasonSignature); !ok {
		t.Errorf("not said: %v", w.events)
	}
}

// A reflashed device, whose counter starts again, goes on above what the server knows.
func TestReflashedDevice(t *testing.T) {
	g := standard()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	w.s.nonce = 1 << 40
	rel := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
	w.s.put(rel)
	w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
	w.targetIs(rel.image)
	if w.s.nonce <= 1<<40 {
		t.Error("its nonce did not rise")
	}
}

// Native is refused without roots, without a verifier and without a store for a list.
func TestNativeIsRefusedWithoutRoots(t *testing.T) {
	var n device.Native
	var j device.Judge
	var h native.SoftMAC
	var s device.Signed
	c := &device.NativeConfig{Device: []byte("d"), Product: []byte("p"), Hardware: []byte("h"), MAC: &h, Judge: &j}
	c.Hash = new(digest.SHA256)
	if err := device.NewSigned(&s, Ed25519{}, nil); !errors.Is(err, device.ErrTrust) {
		t.Errorf("without roots: %v", err)
	}
	if err := device.NewSigned(&s, nil, Baked{}); !errors.Is(err, device.ErrTrust) {
		t.Errorf("without a verifier: %v", err)
	}
	if err := device.NewNative(&n, c); !errors.Is(err, device.ErrTrust) {
		t.Errorf("without a profile: %v", err)
	}
	// A Signed that was refused, or never made, is no other profile either.
	for _, s := range []*device.Signed{&s, new(device.Signed), nil} {
		c.Profile = s.Profile()
		if err := device.NewNative(&n, c); !errors.Is(err, device.ErrTrust) {
			t.Errorf("with a Signed without a verifier: %v", err)
		}
	}
	if err := device.NewSigned(&s, Ed25519{}, Baked{}); err != nil {
		t.Errorf("with both: %v", err)
	}
	if err := device.NewNative(&n, c); !errors.Is(err, device.ErrTrust) {
		t.Errorf("the profile that was taken from nil: %v", err)
	}
	c.Profile = s.Profile()
	if err := device.NewNative(&n, c); err != nil {
		t.Errorf("with both: %v", err)
	}
	g := standard()
	g.noState = true
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	if err := w.b.Run(t.Context(), boot.ResetPowerOn, w.app(5)); !errors.Is(err, device.ErrTrust) {
		t.Errorf("without a store: %v", err)
	}
}

// Profile mac-only believes the answer's MAC: no signature is looked at, everything
// else is.
func TestMACOnly(t *testing.T) {
	g := standard()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	w.built.Roots = nil
	w.p.releases = []ed25519.PrivateKey{keyOf(0x66)} // in no list
	rel := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
	w.s.put(rel)
	w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
	w.targetIs(rel.image)
	for _, r := range w.s.requests {
		if strings.Contains(r, "keylists") {
			t.Error("it asked for a key list")
		}
	}
}

// The way back by an authenticated order: to the slot that holds what this device
// confirmed before, by its digest.
func TestNativeWayBack(t *testing.T) {
	g := standard()
	w := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	b := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 1, g.chunk)
	c := w.p.release(t, image(t, g.imgSize, "C", BehaveOK), "C", 2, g.chunk)
	w.install(b)
	w.install(c)
	w.forget()
	w.s.revert = 1
	w.runTo(boot.ResetPowerOn, 60, func(device.Event) bool { return w.s.said(native.StateReverted, device.ReasonOrdered) })
	w.s.revert = 0
	w.runTo(boot.ResetPowerOn, 20, never)
	if w.run != 1 || !bytes.HasPrefix(w.slot(1), b.image) || w.s.fetched != 0 || !w.s.said(native.StateReverted, device.ReasonOrdered) {
		t.Fatalf("slot %d runs, %d bytes fetched, reports %+v", w.run, w.s.fetched, w.s.reports)
	}
	if f := w.up.State().Floors; f.Stamp != 2 {
		t.Errorf("floors %+v: they never go back", f)
	}
	// And with a slot that was damaged meanwhile there is none.
	w2 := newNativeWorld(t, g, image(t, g.imgSize, "A", BehaveOK))
	w2.install(b)
	w2.install(c)
	off := 0x10000 + uint32(g.slotSize) + 5000
	if err := w2.b.Chip.Load(off, []byte{w2.b.Chip.Raw()[off] ^ 1}); err != nil {
		t.Fatal(err)
	}
	w2.s.revert = 1
	w2.runTo(boot.ResetPowerOn, 30, never)
	if w2.run != 0 || !w2.s.said(native.StateFailed, device.ReasonNoWayBack) {
		t.Errorf("slot %d runs, reports %+v", w2.run, w2.s.reports)
	}
}
