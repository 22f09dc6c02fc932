package board

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/nor"
)

// patchWorld is a board that takes derived streams, and a server that has one.
type patchWorld struct {
	t        *testing.T
	b        *Board
	srv      labserver.Server
	clock    VirtualClock
	old, new []byte
	payload  []byte // of the derived stream
	sheet    release.Sheet
	memory   PatchMemory
	events   []device.Event
	requests []string
	run      boot.Slot
	asked    int
	up       *device.Updater
	spoil    func(r device.Request, a *labserver.Answer) Answer // nil: what the server says
	scratch  func(flash.Area) flash.Area                        // nil: the partition
	macOnly  bool
	signer   byte // seed of another key that signs the sheet; 0: a release key
}

// newPatchWorld has release B on offer, by a patch from A or, without a base,
// compressed.
func newPatchWorld(t *testing.T, m PatchMemory, base bool, change func(w *patchWorld)) *patchWorld {
	t.Helper()
	g := standard()
	w := &patchWorld{t: t, memory: m, old: image(t, g.imgSize, "A", BehaveOK), new: image(t, g.imgSize+4096+16, "B", BehaveOK)}
	w.b = newBoard(t, g, w.old)
	book, err := labserver.NewBook()
	if err != nil {
		t.Fatal(err)
	}
	w.srv = labserver.New(book)
	profile := uint8(patch.ProfileSmall)
	if m == PatchLarge {
		profile = patch.ProfileLarge
	}
	w.sheet = release.Sheet{Kind: manifest.StreamCompressed, Profile: profile, RAM: 1, Chunk: uint32(m.Chunk())}
	from := []byte(nil)
	if base {
		from = w.old
		w.sheet.Kind, w.sheet.BaseDigest, w.sheet.BaseSize = manifest.StreamPatch, sha256.Sum256(w.old), uint32(len(w.old))
	}
	w.payload = payloadOf(t, from, w.new, delta.Options{Profile: profile, ImageChunk: 1024, RestartEvery: 1024})
	if change != nil {
		change(w)
	}
	if _, err := book.Add("B", w.new, 10, 1, 1024); err != nil {
		t.Fatal(err)
	}
	book.SignWith(w.signer)
	if err := book.Derive(0, w.payload, w.sheet); err != nil {
		t.Fatal(err)
	}
	w.srv.Offer = 0
	return w
}

// payloads are made once: that takes longer than a run.
var payloads sync.Map // by what they are made of

func payloadOf(t *testing.T, old, new []byte, o delta.Options) []byte {
	t.Helper()
	key := fmt.Sprintf("%x %x %d %d %v", sha256.Sum256(old), sha256.Sum256(new), o.Profile, o.RestartEvery, o.Keep)
	if p, ok := payloads.Load(key); ok {
		return bytes.Clone(p.([]byte))
	}
	r, err := delta.Make(t.Context(), old, new, o)
	if err != nil {
		t.Fatal(err)
	}
	payloads.Store(key, r.Payload)
	return bytes.Clone(r.Payload)
}

// Do is Transport.
func (w *patchWorld) Do(_ context.Context, r device.Request) (Answer, error) {
	w.clock.Now += 5
	w.requests = append(w.requests, string(r.Target))
	a := w.srv.Do(r)
	if w.spoil != nil {
		return w.spoil(r, a), nil
	}
	return a, nil
}

// play runs the board until the release is confirmed, or the power is cut.
func (w *patchWorld) play(waits int) error {
	w.t.Helper()
	c := &countingClock{VirtualClock: &w.clock, left: waits}
	roots := w.srv.Book.Baked()
	if w.macOnly {
		roots = nil
	}
	return w.b.Run(w.t.Context(), boot.ResetPowerOn, App{
		Transport: w, Clock: c, ChunkSize: 1024,
		Native: &Native{Device: labserver.Device, Product: labserver.Product, Hardware: labserver.Hardware,
			Secret: w.srv.Book.Secret, Roots: roots, Patches: w.memory, Verifier: Ed25519{}},
		ChangeScratch: w.scratch,
		OnStart:       func(u *device.Updater, bt Boot) { w.up, w.run = u, bt.Running },
		OnEvent: func(e device.Event) {
			w.events = append(w.events, e)
			if s := w.up.Status(); e.Kind == device.EventDerived && (int(s.Derived) != len(w.payload) || s.Patch != (w.sheet.Kind == manifest.StreamPatch)) {
				w.t.Errorf("%+v, of a derived stream of %d bytes", s, len(w.payload))
			}
		},
		Stop: func() bool { return c.left <= 0 || w.srv.Heard[0].Confirmed },
	})
}

func (w *patchWorld) updated() {
	w.t.Helper()
	if err := w.play(200); err != nil {
		w.t.Fatal(err)
	}
	got := (&world{t: w.t, b: w.b}).slot(1)
	if w.run != 1 || !bytes.HasPrefix(got, w.new) || !w.srv.Heard[0].Confirmed {
		w.t.Fatalf("slot %d runs; events %v; requests %v", w.run, w.events, w.requests)
	}
}

// said is whether the server heard a reason, and of the device an event with it.
func (w *patchWorld) said(r device.Reason) bool {
	for _, e := range w.events {
		if e.Kind == device.EventFullStream && e.Reason == r {
			return w.srv.Heard[0].Said(r)
		}
	}
	return false
}

// Of a derived stream a device fetches that, and nothing of the raw one.
func TestPatchUpdate(t *testing.T) {
	for _, m := range []PatchMemory{PatchSmall, PatchLarge} {
		for _, base := range []bool{true, false} {
			w := newPatchWorld(t, m, base, nil)
			w.macOnly = m == PatchSmall
			w.updated()
			size := w.srv.Book.Releases[0].DerivedBytes()
			if !slices.ContainsFunc(w.events, func(e device.Event) bool { return e.Kind == device.EventDerived }) {
				t.Errorf("memory %d, base %v: events %v", m, base, w.events)
			}
			if !w.srv.Derived || w.srv.Total() != size {
				t.Errorf("memory %d, base %v: %d bytes fetched of %d, %v", m, base, w.srv.Total(), size, w.requests)
			}
			t.Logf("memory %d, base %v: %d bytes for an image of %d", m, base, size, len(w.new))
		}
	}
}

// TestPatchRAM: with all that an update takes, the record's buffer included, on a
// 64-bit machine.
func TestPatchRAM(t *testing.T) {
	for _, c := range []struct {
		name  string
		m     PatchMemory
		limit int
	}{{"small", PatchSmall, 8192}, {"large", PatchLarge, 16384}} {
		patches, all := PatchBytes(c.m), WorkingSet(NativeWire, c.m.Chunk(), 2)+PatchBytes(c.m)
		record := c.m.Chunk() + nativeBeside
		t.Logf("%s: %d bytes for patches, %d with a record; %d is all that an update takes", c.name, patches, patches+record, all)
		if patches+record > c.limit {
			t.Errorf("%s: %d bytes, at most %d are allowed", c.name, patches+record, c.limit)
		}
	}
}

// A board without memory for them is not even offered one.
func TestNoPatchMemory(t *testing.T) {
	w := newPatchWorld(t, PatchSmall, true, func(w *patchWorld) { w.memory = PatchNone })
	w.updated()
	if w.srv.Derived || w.srv.Total() != int64(len(w.srv.Book.Releases[0].Stream)) {
		t.Errorf("%d bytes fetched, %v", w.srv.Total(), w.requests)
	}
}

// Whatever is wrong with a derived stream, the raw one is taken, the server hears why,
// and the release does not fail for it. What was written already is not fetched again.
func TestPatchFallsBack(t *testing.T) {
	flip := func(at int) func(*patchWorld) { return func(w *patchWorld) { w.payload[at] ^= 0x55 } }
	for _, c := range []struct {
		name   string
		base   bool
		change func(*patchWorld)
		want   device.Reason
		erased bool // for the derived stream, before it failed
	}{
		{"another base", true, func(w *patchWorld) { w.sheet.BaseDigest[0] ^= 1 }, device.ReasonBase, false},
		{"a base longer than its slot", true, func(w *patchWorld) { w.sheet.BaseSize = 1 << 20 }, device.ReasonBase, false},
		{"a base of more bytes", true, func(w *patchWorld) { w.sheet.BaseSize++ }, device.ReasonBase, false},
		{"of another image", true, func(w *patchWorld) { w.sheet.ImageRoot[0] = 1 }, device.ReasonSheet, false},
		{"for more memory", true, func(w *patchWorld) { w.memory, w.sheet.Profile = PatchLarge, 3 }, 0, false},
		{"no patch at all", true, func(w *patchWorld) { w.payload[0] = 99 }, device.ReasonPatch, false},
		{"of another layout", true, func(w *patchWorld) { w.payload[1] = 200 }, device.ReasonPatch, false},
		{"damaged in the middle", false, func(w *patchWorld) { flip(len(w.payload) / 2)(w) }, device.ReasonPatch, true},
		{"ends early", false, func(w *patchWorld) { w.payload = w.payload[:len(w.payload)/2] }, device.ReasonPatch, true},
		{"signed by nobody that counts", true, func(w *patchWorld) { w.signer = 0x66 }, device.ReasonSheet, false},
		{"goes on behind its end", true, func(w *patchWorld) { w.payload = append(w.payload, make([]byte, 3000)...) }, device.ReasonPatch, true},
		{"makes another image", true, func(w *patchWorld) {
			other := bytes.Clone(w.new)
			other[40000] ^= 1
			w.payload = payloadOf(w.t, w.old, other, delta.Options{Profile: w.sheet.Profile})
		}, device.ReasonPatch, true},
		{"makes a longer image", true, func(w *patchWorld) {
			w.payload = payloadOf(w.t, w.old, append(bytes.Clone(w.new), 1, 2, 3), delta.Options{Profile: w.sheet.Profile})
		}, device.ReasonPatch, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newPatchWorld(t, PatchSmall, c.base, c.change)
			w.updated()
			raw := int64(len(w.srv.Book.Releases[0].Stream))
			if c.want == 0 {
				if w.srv.Derived {
					t.Errorf("it was fetched: %v", w.requests)
				}
				return
			}
			if !w.said(c.want) {
				t.Errorf("the server heard %v; events %v", w.srv.Heard[0].Last, w.events)
			}
			size := w.srv.Book.Releases[0].DerivedBytes()
			// Where the image differs, a sector comes twice.
			if got := w.srv.Total(); got > raw+raw/20+4096+size {
				t.Errorf("%d bytes fetched: the raw stream has %d, the derived %d", got, raw, size)
			}
			t.Logf("%d bytes fetched: the raw stream has %d, the derived %d", w.srv.Total(), raw, size)
		})
	}
}

// Where the line breaks, a derived stream goes on as any; where the derived one is not
// there, or not what its sheet says, the raw one is taken.
func TestPatchOverBadLines(t *testing.T) {
	sheet := func(r device.Request) bool { return bytes.HasPrefix(r.Target, []byte("/r1/sheets/")) }
	derived := func(w *patchWorld, r device.Request) bool {
		return bytes.HasPrefix(r.Target, []byte(w.srv.Book.Releases[0].DerivedPath()))
	}
	for _, c := range []struct {
		name  string
		spoil func(w *patchWorld, r device.Request, a *labserver.Answer) Answer
		want  device.Reason // 0: the derived stream does
	}{
		{"the line breaks every 1,500 bytes", func(w *patchWorld, r device.Request, a *labserver.Answer) Answer {
			if derived(w, r) {
				return &broken{Answer: a, left: 1500}
			}
			return a
		}, 0},
		{"the sheet comes at the third try", func(w *patchWorld, r device.Request, a *labserver.Answer) Answer {
			if w.asked++; sheet(r) && w.asked < 6 {
				return &other{Answer: a, status: 503}
			}
			return a
		}, 0},
		{"no sheet", func(w *patchWorld, r device.Request, a *labserver.Answer) Answer {
			if sheet(r) {
				return &other{Answer: a, status: 404}
			}
			return a
		}, device.ReasonSheet},
		{"another sheet", func(w *patchWorld, r device.Request, a *labserver.Answer) Answer {
			if sheet(r) {
				return &other{Answer: a, status: 200, flip: true}
			}
			return a
		}, device.ReasonSheet},
		{"no derived stream", func(w *patchWorld, r device.Request, a *labserver.Answer) Answer {
			if derived(w, r) {
				return &other{Answer: a, status: 404}
			}
			return a
		}, device.ReasonStream},
		{"other records", func(w *patchWorld, r device.Request, a *labserver.Answer) Answer {
			if derived(w, r) {
				return &other{Answer: a, flip: true}
			}
			return a
		}, device.ReasonRecord},
		{"no ranges", func(w *patchWorld, r device.Request, a *labserver.Answer) Answer {
			if r.Ranged {
				r.Ranged = false
				return w.srv.Do(r)
			}
			return a
		}, device.ReasonStream},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newPatchWorld(t, PatchSmall, false, nil)
			w.spoil = func(r device.Request, a *labserver.Answer) Answer { return c.spoil(w, r, a) }
			w.updated()
			if c.want != 0 && !w.said(c.want) {
				t.Errorf("the server heard %v; events %v", w.srv.Heard[0].Last, w.events)
			}
			for _, e := range w.events {
				if c.want == 0 && e.Kind == device.EventFullStream {
					t.Errorf("the raw stream was taken: %v", w.requests)
				}
			}
		})
	}
}

// broken breaks after some bytes.
type broken struct {
	*labserver.Answer
	left int
}

func (b *broken) Read(p []byte) (int, bool, error) {
	if b.left <= 0 {
		return 0, false, errors.New("the line broke")
	}
	n, eof, err := b.Answer.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, eof, err
}

// other is another answer.
type other struct {
	*labserver.Answer
	status uint16 // 0: its own
	flip   bool
}

func (o *other) Head() device.Head {
	h := o.Answer.Head()
	if o.status != 0 {
		h.Status = o.status
	}
	return h
}

func (o *other) Read(p []byte) (int, bool, error) {
	n, eof, err := o.Answer.Read(p)
	if o.flip && n > 0 {
		p[0] ^= 1
	}
	return n, eof, err
}

// Cut at each flash operation in turn, a download goes on from a restart point, and
// fetches at most what lies between two of them again.
func TestPatchResumes(t *testing.T) {
	for _, base := range []bool{true, false} {
		resumed, most := 0, int64(0)
		for k := 5; ; k += 7 {
			w := newPatchWorld(t, PatchSmall, base, nil)
			n := 0
			w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
				n++
				if n == k {
					return nor.Cut{When: nor.CutInside, Done: op.Len / 2, Disturb: true}
				}
				return nor.Cut{}
			})
			err := w.play(200)
			if err == nil {
				break
			}
			if !errors.Is(err, ErrPowerCut) {
				t.Fatal(err)
			}
			w.b.Chip.SetCut(nil)
			w.b.Chip.PowerOn()
			w.updated()
			for _, e := range w.events {
				if e.Kind == device.EventResume && e.Bytes > 0 && e.Bytes < uint32(len(w.new)) {
					resumed++
					if slots, err := w.b.Slots(ptr(smallTable(standard()))); err != nil || w.b.Chip.Wear(slots[1].Base()) != 1 {
						t.Errorf("cut at %d: what is in flash is written again", k)
					}
				}
			}
			most = max(most, w.srv.Total()-w.srv.Book.Releases[0].DerivedBytes())
		}
		w := newPatchWorld(t, PatchSmall, base, nil)
		size := w.srv.Book.Releases[0].DerivedBytes()
		old := w.old
		if !base {
			old = nil
		}
		promised, err := labserver.Interval(old, w.new, w.payload, int(w.sheet.Chunk))
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("base %v: %d resumed, at most %d bytes again of %d, %d promised", base, resumed, most, size, promised)
		if most > promised {
			t.Errorf("base %v: %d bytes were fetched again", base, most)
		}
		if resumed < 5 {
			t.Errorf("base %v: only %d downloads went on from a restart point", base, resumed)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// What differs from what a stream makes again is written again, from its sector on; and
// where a restart point stands behind it, the walk finds it.
func TestPatchOverDamagedFlash(t *testing.T) {
	for _, restarts := range []bool{false, true} {
		w := newPatchWorld(t, PatchSmall, true, func(w *patchWorld) {
			if !restarts {
				w.payload = payloadOf(t, w.old, w.new, delta.Options{Profile: w.sheet.Profile, RestartEvery: -1})
			}
		})
		n := 0
		w.b.Chip.SetCut(func(nor.Op) nor.Cut {
			if n++; n == 200 {
				return nor.Cut{When: nor.CutBefore}
			}
			return nor.Cut{}
		})
		if err := w.play(200); !errors.Is(err, ErrPowerCut) {
			t.Fatal(err)
		}
		w.b.Chip.SetCut(nil)
		w.b.Chip.PowerOn()
		slots, err := w.b.Slots(ptr(smallTable(standard())))
		if err != nil {
			t.Fatal(err)
		}
		const at = 3*4096 + 1000
		if err := w.b.Chip.Load(slots[1].Base()+at, []byte{^w.new[at]}); err != nil {
			t.Fatal(err)
		}
		w.updated()
		if !slices.ContainsFunc(w.events, func(e device.Event) bool { return e.Kind == device.EventStartOver }) {
			t.Errorf("restart points %v: damage was not found: %v", restarts, w.events)
		}
		first, there := w.b.Chip.Wear(slots[1].Base()), w.b.Chip.Wear(slots[1].Base()+at)
		if there != 2 || !restarts && first != 1 {
			t.Errorf("restart points %v: the damaged sector was erased %d times, the first %d times", restarts, there, first)
		}
	}
}
