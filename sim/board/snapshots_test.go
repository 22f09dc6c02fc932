package board

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/nor"
)

// newKeptWorld has a release on offer by a patch whose model goes on over restart points.
// The images have little in common: what is fetched again shows.
func newKeptWorld(t *testing.T, m PatchMemory) *patchWorld {
	t.Helper()
	return newPatchWorld(t, m, true, func(w *patchWorld) {
		var err error
		if w.new, err = BuildImage(ImageSpec{Size: 100_000, Project: "test", Version: "B", Seed: 2}); err != nil {
			t.Fatal(err)
		}
		w.payload = payloadOf(t, w.old, w.new, delta.Options{Profile: w.sheet.Profile, ImageChunk: 1024, RestartEvery: 1024, Keep: true})
	})
}

// cutAt plays until the power fails at an operation; false: there are not so many.
func (w *patchWorld) cutAt(k int) bool {
	w.t.Helper()
	n := 0
	w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
		if n++; n == k {
			return nor.Cut{When: nor.CutInside, Done: op.Len / 2, Disturb: true}
		}
		return nor.Cut{}
	})
	err := w.play(200)
	if err != nil && !errors.Is(err, ErrPowerCut) {
		w.t.Fatal(err)
	}
	w.b.Chip.SetCut(nil)
	w.b.Chip.PowerOn()
	return err != nil
}

// scratchAt is where the scratch partition begins.
func (w *patchWorld) scratchAt() uint32 {
	t := smallTable(standard())
	return t.Find(esp32.TypeRunnel, esp32.SubtypeScratch).Offset
}

// snapshots are both halves of the scratch partition as a chip holds them.
func (w *patchWorld) snapshots() (halves [2][]byte) {
	for i := range halves {
		halves[i] = make([]byte, scratchBytes/2)
		if err := w.b.Chip.ReadAt(halves[i], w.scratchAt()+uint32(i)*scratchBytes/2); err != nil {
			w.t.Fatal(err)
		}
	}
	return halves
}

func (w *patchWorld) again() int64 { return w.srv.Total() - w.srv.Book.Releases[0].DerivedBytes() }

func (w *patchWorld) saw(k device.EventKind) bool {
	return slices.ContainsFunc(w.events, func(e device.Event) bool { return e.Kind == k })
}

// With a scratch partition a cut costs one interval, as where the model begins anew at
// each restart point. Without one, all of it: else the bound would say nothing.
func TestSnapshotResumes(t *testing.T) {
	for _, m := range []PatchMemory{PatchSmall, PatchLarge} {
		for _, scratch := range []bool{true, false} {
			most, found, cuts := int64(0), 0, 0
			for k := 5; ; k += 13 {
				w := newKeptWorld(t, m)
				if !scratch {
					w.scratch = func(flash.Area) flash.Area { return flash.Area{} }
				}
				if !w.cutAt(k) {
					break
				}
				cuts++
				w.updated()
				if w.saw(device.EventFullStream) {
					t.Fatalf("memory %d, cut at %d: the raw stream was taken; events %v", m, k, w.events)
				}
				if w.saw(device.EventResume) && !w.saw(device.EventStartOver) {
					found++
				}
				most = max(most, w.again())
			}
			w := newKeptWorld(t, m)
			promised, err := labserver.Interval(w.old, w.new, w.payload, int(w.sheet.Chunk))
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("memory %d, scratch %v: %d cuts, at most %d bytes again of %d, %d promised", m, scratch, cuts, most, w.srv.Book.Releases[0].DerivedBytes(), promised)
			if scratch != (most <= promised) || scratch && found < cuts/2 {
				t.Errorf("memory %d, scratch %v: %d bytes were fetched again, %d are promised; %d of %d went on", m, scratch, most, promised, found, cuts)
			}
		}
	}
}

// TestSnapshotCost is what a snapshot costs of flash, on the clock of a W25Q32-class chip; and
// both halves wear alike.
func TestSnapshotCost(t *testing.T) {
	for _, c := range []struct {
		m                PatchMemory
		sectors, atPages int // of a half, at most
	}{{PatchSmall, 2, 22}, {PatchLarge, 3, 48}} {
		w := newKeptWorld(t, c.m)
		erases, programs := 0, 0
		var time, since time.Duration
		inScratch := false
		w.b.Chip.SetLog(func(op nor.Op) { // before it happens: the one before is over
			if inScratch {
				time += w.b.Chip.Clock() - since
			}
			since, inScratch = w.b.Chip.Clock(), op.Off >= w.scratchAt()
			switch {
			case inScratch && op.Kind == nor.Erase:
				erases++
			case inScratch:
				programs++
			}
		})
		w.updated()
		n := int(len(w.new) / (16 << 10))
		first, second := w.b.Chip.Wear(w.scratchAt()), w.b.Chip.Wear(w.scratchAt()+scratchBytes/2)
		t.Logf("memory %d: %d snapshots, %d erases and %d programs each, %d ms", c.m, n, erases/n, programs/n, time.Milliseconds()/int64(n))
		// The seal is a program of its own.
		if erases > n*c.sectors || programs > n*(c.atPages+1) || first != uint32(n/2) || second != uint32(n/2) {
			t.Errorf("memory %d: %d erases, %d programs, the halves were erased %d and %d times", c.m, erases, programs, first, second)
		}
	}
}

// smallSnapshot finds the snapshot at the start of a half, and its seal: where its
// magic stands and the length that it states fits, on a chip whose program unit is 1.
func smallSnapshot(half []byte) (body, seal []byte) {
	for at := 0; at+32 <= len(half); at += 2 {
		seal := half[at : at+32]
		if n := int(binary.LittleEndian.Uint32(seal[20:])); string(seal[:4]) == "RNLM" && n == at {
			return half[:n], seal
		}
	}
	return nil, nil
}

// Whatever a scratch partition holds after a cut, the image comes out.
func TestStrangeSnapshots(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	le := binary.LittleEndian
	noise := func(p []byte) {
		for i := range p {
			p[i] = byte(rng.Uint32())
		}
	}
	blank := func(p []byte) {
		for i := range p {
			p[i] = 0xFF
		}
	}
	sealed := func(body, seal []byte) {
		le.PutUint32(seal[24:], crc32.ChecksumIEEE(body))
		le.PutUint32(seal[28:], crc32.ChecksumIEEE(seal[:28]))
	}
	for _, c := range []struct {
		name   string
		change func(i int, half, body, seal []byte) // of each half
		want   device.EventKind
	}{
		{"as they were", func(int, []byte, []byte, []byte) {}, device.EventResume},
		{"erased", func(_ int, half, _, _ []byte) { blank(half) }, device.EventStartOver},
		{"noise", func(_ int, half, _, _ []byte) { noise(half) }, device.EventStartOver},
		{"one bit of the snapshot", func(_ int, _, body, _ []byte) { body[500] ^= 4 }, device.EventStartOver},
		{"one bit of the seal", func(_ int, _, _, seal []byte) { seal[13] ^= 4 }, device.EventStartOver},
		{"no seal", func(_ int, _, _, seal []byte) { blank(seal) }, device.EventStartOver},
		{"another format", func(_ int, _, body, seal []byte) { seal[4]++; sealed(body, seal) }, device.EventStartOver},
		{"another stream", func(_ int, _, body, seal []byte) { seal[8]++; sealed(body, seal) }, device.EventStartOver},
		{"another place", func(_ int, _, body, seal []byte) { seal[12]++; sealed(body, seal) }, device.EventStartOver},
		{"another length", func(_ int, _, body, seal []byte) { seal[20]--; sealed(body[:len(body)-1], seal) }, device.EventStartOver},
		{"noise, under right checksums", func(_ int, _, body, seal []byte) { noise(body); sealed(body, seal) }, device.EventStartOver},
		{"zeros, under right checksums", func(_ int, _, body, seal []byte) { clear(body); sealed(body, seal) }, device.EventStartOver},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, halves := cutBehindSnapshots(t)
			for i, half := range halves {
				body, seal := smallSnapshot(half)
				c.change(i, half, body, seal)
			}
			w.putSnapshots(halves)
			w.updated()
			if !w.saw(c.want) || w.saw(device.EventFullStream) || c.want == device.EventResume && w.saw(device.EventStartOver) {
				t.Errorf("events %v", w.events)
			}
		})
	}
}

// A snapshot that is wrong in one word, under a right checksum, makes another image or
// none; or the word is not needed. Whatever comes of it, the derived stream does.
func TestSlightlyWrongSnapshots(t *testing.T) {
	const seed = 11
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	overs := 0
	for range 40 {
		w, halves := cutBehindSnapshots(t)
		at := rng.IntN(2000)
		for _, half := range halves {
			body, seal := smallSnapshot(half)
			body[at*2+1] ^= 0x80
			binary.LittleEndian.PutUint32(seal[24:], crc32.ChecksumIEEE(body))
			binary.LittleEndian.PutUint32(seal[28:], crc32.ChecksumIEEE(seal[:28]))
		}
		w.putSnapshots(halves)
		w.updated()
		if w.saw(device.EventFullStream) {
			t.Errorf("word %d: the raw stream was taken; events %v", at, w.events)
		}
		if w.saw(device.EventStartOver) {
			overs++
		}
	}
	t.Logf("%d of 40 were begun anew", overs)
	if overs == 0 {
		t.Error("none was used")
	}
}

// Of two snapshots of the same point, the whole one is taken, wherever it is.
func TestSnapshotTwice(t *testing.T) {
	for rotten := range 2 {
		w, halves := cutBehindSnapshots(t)
		_, s0 := smallSnapshot(halves[0])
		_, s1 := smallSnapshot(halves[1])
		newest := 0
		if binary.LittleEndian.Uint32(s1[16:]) > binary.LittleEndian.Uint32(s0[16:]) {
			newest = 1
		}
		copy(halves[1-newest], halves[newest])
		halves[rotten][1000] ^= 1
		w.putSnapshots(halves)
		w.updated()
		if w.saw(device.EventStartOver) || w.saw(device.EventFullStream) {
			t.Errorf("half %d rotten: events %v", rotten, w.events)
		}
	}
}

// cutBehindSnapshots is a world cut while a slot is written, when both halves of the
// scratch partition have a snapshot.
func cutBehindSnapshots(t *testing.T) (*patchWorld, [2][]byte) {
	t.Helper()
	w := newKeptWorld(t, PatchSmall)
	erases := 0
	w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
		if op.Kind == nor.Erase && op.Off >= w.scratchAt() {
			erases++
		}
		if erases >= 6 && op.Off < w.scratchAt()-0x2000 {
			return nor.Cut{When: nor.CutBefore}
		}
		return nor.Cut{}
	})
	if err := w.play(200); !errors.Is(err, ErrPowerCut) {
		t.Fatal(err)
	}
	w.b.Chip.SetCut(nil)
	w.b.Chip.PowerOn()
	w.events = nil
	halves := w.snapshots()
	for i, h := range halves {
		if _, seal := smallSnapshot(h); seal == nil {
			t.Fatalf("half %d has no snapshot", i)
		}
	}
	return w, halves
}

// putSnapshots loads both halves into the chip.
func (w *patchWorld) putSnapshots(halves [2][]byte) {
	w.t.Helper()
	for i, h := range halves {
		if err := w.b.Chip.Load(w.scratchAt()+uint32(i)*scratchBytes/2, h); err != nil {
			w.t.Fatal(err)
		}
	}
}

// A scratch area that is too small is none; one whose program unit the output buffer is no
// multiple of is a mistake of who made the board.
func TestScratchThatDoesNotFit(t *testing.T) {
	w := newKeptWorld(t, PatchSmall)
	w.scratch = func(a flash.Area) flash.Area {
		small, err := a.Sub(0, 0x2000)
		if err != nil {
			t.Fatal(err)
		}
		return small
	}
	if !w.cutAt(300) {
		t.Fatal("no cut")
	}
	w.updated()
	if w.b.Chip.Wear(w.scratchAt()) != 0 || w.again() == 0 || w.saw(device.EventFullStream) {
		t.Errorf("erased %d times, %d bytes again; events %v", w.b.Chip.Wear(w.scratchAt()), w.again(), w.events)
	}
	w = newKeptWorld(t, PatchSmall)
	w.scratch = func(a flash.Area) flash.Area {
		other, err := flash.NewArea(&coarse{&a}, 0, a.Size())
		if err != nil {
			t.Fatal(err)
		}
		return other
	}
	if err := w.play(1); !errors.Is(err, device.ErrPatches) {
		t.Errorf("%v", err)
	}
}

// coarse has a larger program unit than an output buffer.
type coarse struct{ flash.Device }

func (c *coarse) Geometry() flash.Geometry {
	g := c.Device.Geometry()
	g.ProgramSize = 2 * patchOut
	return g
}

// Scratch flash that is worn out costs its snapshots, and nothing of the update.
func TestScratchFails(t *testing.T) {
	for _, kind := range []nor.Kind{nor.Erase, nor.Program} {
		w := newKeptWorld(t, PatchSmall)
		failed := 0
		w.b.Chip.SetFail(func(op nor.Op) error {
			if op.Kind != kind || op.Off < w.scratchAt() || op.Off >= w.scratchAt()+scratchBytes {
				return nil
			}
			failed++
			if kind == nor.Erase {
				return flash.ErrErase
			}
			return flash.ErrProgram
		})
		w.updated()
		if failed == 0 || w.saw(device.EventFullStream) || w.saw(device.EventStartOver) || w.again() != 0 {
			t.Errorf("%d operations failed; events %v", failed, w.events)
		}
	}
}
