package delta

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/stream"
)

var archs = []patch.Arch{patch.ArchXtensa, patch.ArchRISCV, patch.ArchThumb}

// pairOf is two versions of a synthetic program.
func pairOf(arch patch.Arch, functions int) (old, new []byte) {
	p := newSynth(arch, 1, functions)
	return p.image(), p.changed(2).image()
}

func mustMake(t testing.TB, old, new []byte, o Options) *Result {
	t.Helper()
	r, err := Make(context.Background(), old, new, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestPrediction: where everything moves, a patch that predicts is far smaller than one
// that does not, in either profile.
func TestPrediction(t *testing.T) {
	for _, arch := range archs {
		old, new := pairOf(arch, 150)
		g := guess(old, new)
		if g.arch != arch {
			t.Errorf("%s is taken for %s", archNames[arch], archNames[g.arch])
			continue
		}
		for _, profile := range []uint8{patch.ProfileLarge, patch.ProfileSmall} {
			r := mustMake(t, old, new, Options{Profile: profile})
			blind := maker{ctx: t.Context(), old: old, new: new, o: Options{Profile: profile, ImageChunk: 1024, RestartEvery: -1}}
			if err := blind.search(); err != nil {
				t.Fatal(err)
			}
			t.Logf("%s, profile %d: %d bytes of %d (%s), %d without prediction", archNames[arch], profile, len(r.Payload), len(new), r.Variant, len(blind.best.out))
			if 10*len(r.Payload) > 8*len(blind.best.out) {
				t.Errorf("%s, profile %d: %d bytes with prediction, %d without", archNames[arch], profile, len(r.Payload), len(blind.best.out))
			}
		}
	}
}

// fill makes p noise.
func fill(r *rand.Rand, p []byte) {
	for i := range p {
		p[i] = byte(r.Uint32())
	}
}

// TestEdges: images of all lengths and none.
func TestEdges(t *testing.T) {
	long := make([]byte, 20000)
	fill(rand.New(rand.NewPCG(3, 0)), long)
	old, new := pairOf(patch.ArchXtensa, 20)
	images := [][]byte{nil, {0xE9}, []byte("a few bytes"), bytes.Repeat([]byte{0xFF}, 30000), long, long[:100], old, new, old[:len(old)/2]}
	for i, a := range images {
		for j, b := range images {
			r := mustMake(t, a, b, Options{})
			if i == j && len(b) > 0 && i != 4 && len(r.Payload) > 300 {
				t.Errorf("image %d from itself: %d bytes", i, len(r.Payload))
			}
		}
	}
}

// TestPadding: what is put behind an image, or was there, takes next to nothing.
func TestPadding(t *testing.T) {
	old, new := pairOf(patch.ArchXtensa, 60)
	bare := mustMake(t, old, new, Options{})
	for _, pad := range []byte{0, 0xFF} {
		padded := append(bytes.Clone(new), bytes.Repeat([]byte{pad}, 300000)...)
		r := mustMake(t, old, padded, Options{})
		if len(r.Payload) > len(bare.Payload)+400 {
			t.Errorf("300,000 bytes %#x: %d bytes, %d without", pad, len(r.Payload), len(bare.Payload))
		}
		if r := mustMake(t, padded, new, Options{}); len(r.Payload) > len(bare.Payload)+50 {
			t.Errorf("300,000 bytes %#x in the old image: %d bytes, %d without", pad, len(r.Payload), len(bare.Payload))
		}
	}
}

// TestNeverMuchLarger: what nothing helps with costs some bytes more than itself.
func TestNeverMuchLarger(t *testing.T) {
	a, b := make([]byte, 30000), make([]byte, 60000)
	fill(rand.New(rand.NewPCG(4, 0)), a)
	fill(rand.New(rand.NewPCG(5, 0)), b)
	if r := mustMake(t, a, b, Options{}); len(r.Payload) > len(b)*102/100 {
		t.Errorf("noise of %d bytes takes %d", len(b), len(r.Payload))
	}
}

// TestRandomEdits: whatever is done to an image, the patch makes it.
func TestRandomEdits(t *testing.T) {
	for i := range 12 {
		r := rand.New(rand.NewPCG(uint64(i), 1))
		old, _ := pairOf(archs[i%3], 250)
		new := edited(r, old)
		res := mustMake(t, old, new, Options{Profile: uint8(1 + i%2), RestartEvery: 256, Keep: i%4 == 0})
		t.Logf("seed %d: %d bytes from %d, %d in the patch, %d restart points", i, len(new), len(old), len(res.Payload), res.Restarts)
	}
}

// edited is an image with some stretches changed, moved, taken away and put in.
func edited(r *rand.Rand, img []byte) []byte {
	out := bytes.Clone(img)
	for range 1 + r.IntN(20) {
		at, n := r.IntN(len(out)), r.IntN(300)
		end := min(at+n, len(out))
		switch r.IntN(4) {
		case 0:
			fill(r, out[at:end])
		case 1:
			out = append(out[:at:at], out[end:]...)
		case 2:
			out = append(out[:at:at], append(bytes.Clone(img[:min(n, len(img))]), out[at:]...)...)
		case 3:
			if at+4 <= len(out) {
				binary.LittleEndian.PutUint32(out[at:], r.Uint32())
			}
		}
		if len(out) == 0 {
			out = []byte{1}
		}
	}
	return out
}

// strict is an image that tells of reads outside of what may be read.
type strict struct {
	t     testing.TB
	data  []byte
	fault error
}

func (s *strict) ReadAt(p []byte, off uint32) error {
	if s.fault != nil {
		return s.fault
	}
	if uint64(off)+uint64(len(p)) > uint64(len(s.data)) {
		s.t.Fatalf("read of %d bytes at %d of %d", len(p), off, len(s.data))
	}
	copy(p, s.data[off:])
	return nil
}

// point is a restart point as a device notes it.
type point struct {
	at, made uint32
	link     [patch.LinkSize]byte
	model    []byte
}

// device applies a patch in pieces, and notes restart points. Memory is full of what was
// there before.
type device struct {
	patch.Applier
	old, new strict
	points   []point
}

func newDevice(t testing.TB, old []byte, size, out, words int) *device {
	d := &device{old: strict{t: t, data: old}, new: strict{t: t}}
	mem := make([]uint16, words)
	for i := range mem {
		mem[i] = 0xA5A5
	}
	c := patch.Config{Old: &d.old, OldSize: uint32(len(old)), New: &d.new, NewSize: uint32(size), Out: make([]byte, out), Memory: mem}
	if err := d.Begin(c); err != 0 {
		t.Fatal(err)
	}
	return d
}

// apply feeds payload in pieces of n bytes until the applier stops.
func (d *device) apply(payload []byte, n int) patch.Status {
	for {
		switch s := d.Step(); s {
		case patch.Hungry:
			m := d.Feed(payload[:min(n, len(payload))])
			payload = payload[m:]
			if len(payload) == 0 {
				d.End()
			}
		case patch.Full:
			d.new.data = append(d.new.data, d.Output()...)
			d.Wrote()
		case patch.Restart:
			p := point{d.LinkAt(), d.Made(), *d.Link(), make([]byte, d.SnapshotLen())}
			for off := 0; off < len(p.model); off += 1000 {
				d.Snapshot(p.model[off:min(off+1000, len(p.model))], uint32(off))
			}
			d.points = append(d.points, p)
		case patch.Done:
			d.new.data = append(d.new.data, d.Output()...)
			d.Wrote()
			return s
		default:
			return s
		}
	}
}

// TestPieces: it does not matter in which pieces a patch comes, how long the output
// buffer is, or what the memory held.
func TestPieces(t *testing.T) {
	for _, arch := range archs {
		old, new := pairOf(arch, 60)
		for _, profile := range []uint8{patch.ProfileLarge, patch.ProfileSmall} {
			r := mustMake(t, old, new, Options{Profile: profile})
			words := patch.LargeWords
			if profile == patch.ProfileSmall {
				words = patch.SmallWords
			}
			for _, n := range []int{1, 7, 100, len(r.Payload)} {
				d := newDevice(t, old, len(new), patch.MinOut+3*n%500, words)
				if s := d.apply(r.Payload, n); s != patch.Done || !bytes.Equal(d.new.data, new) {
					t.Errorf("%s, pieces of %d: %v", archNames[arch], n, d.Err())
				}
			}
		}
	}
}

// TestRestart: from each restart point a device goes on to the same image, with a
// snapshot where the model is kept; the link is the hash of the image's chain there.
func TestRestart(t *testing.T) {
	for _, arch := range archs {
		for _, keep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s,keep=%v", archNames[arch], keep), func(t *testing.T) {
				testRestart(t, arch, keep)
			})
		}
	}
}

func testRestart(t *testing.T, arch patch.Arch, keep bool) {
	const chunk = 512
	old, new := pairOf(arch, 600)
	r := mustMake(t, old, new, Options{RestartEvery: 64, Keep: keep, ImageChunk: chunk})
	d := newDevice(t, old, len(new), 256, patch.LargeWords)
	if s := d.apply(r.Payload, 300); s != patch.Done || !bytes.Equal(d.new.data, new) {
		t.Fatal(d.Err())
	}
	if len(d.points) != r.Restarts || r.Restarts < 2 {
		t.Fatalf("%d restart points seen, %d made", len(d.points), r.Restarts)
	}
	shape := stream.Shape{Size: uint32(len(new)), Chunk: chunk}
	root := shape.Records()
	for _, p := range d.points {
		// The walk from the link over what is in the slot arrives at the root.
		var w stream.Walk
		var h digest.SHA256
		if err := w.Begin(shape, p.made/chunk, &p.link); err != 0 {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		for done := false; !done; {
			done, _ = w.Step(&strict{t: t, data: new[:p.made]}, buf, &h)
		}
		m := maker{new: new, o: Options{ImageChunk: chunk}}
		if err := m.links(); err != nil {
			t.Fatal(err)
		}
		if !w.Proven(&m.chain[0]) {
			t.Fatalf("the link at %d does not lead to the root of %d records", p.made, root)
		}

		again := newDevice(t, old, len(new), 256, patch.LargeWords)
		if err := again.ResumeAt(p.made); err != 0 {
			t.Fatal(err)
		}
		if s := again.apply(r.Payload, 100); s != patch.Seek {
			t.Fatalf("status %d, %v", s, again.Err())
		}
		if keep {
			again.Restore(p.model, 0)
		}
		again.new.data = bytes.Clone(new[:p.made])
		if s := again.apply(r.Payload[p.at:], 100); s != patch.Done || !bytes.Equal(again.new.data, new) {
			t.Fatalf("from %d: %v", p.made, again.Err())
		}
	}
}

// TestStrangeSnapshots: whatever a snapshot holds, the applier reads and makes nothing
// that it may not, and ends.
func TestStrangeSnapshots(t *testing.T) {
	rnd := rand.New(rand.NewPCG(6, 0))
	old, new := pairOf(patch.ArchXtensa, 300)
	r := mustMake(t, old, new, Options{RestartEvery: 64, Keep: true})
	d := newDevice(t, old, len(new), 256, patch.LargeWords)
	d.apply(r.Payload, 300)
	right := 0
	for range 30 {
		p := d.points[rnd.IntN(len(d.points))]
		a := newDevice(t, old, len(new), 256, patch.LargeWords)
		a.ResumeAt(p.made)
		a.apply(r.Payload, 300)
		model := make([]byte, len(p.model)+10)
		fill(rnd, model)
		a.Restore(model, 0)
		a.new.data = bytes.Clone(new[:p.made])
		s := a.apply(r.Payload[p.at:], 300)
		if s != patch.Done && s != patch.Failed || len(a.new.data) > len(new) {
			t.Fatalf("status %d with %d bytes of %d", s, len(a.new.data), len(new))
		}
		if bytes.Equal(a.new.data, new) {
			right++
		}
	}
	if right > 0 {
		t.Errorf("%d strange snapshots led to the image: the snapshot is not used", right)
	}
}

// TestReadErrors: a chip that can't be read ends the patch, with that error.
func TestReadErrors(t *testing.T) {
	old, new := pairOf(patch.ArchXtensa, 60)
	r := mustMake(t, old, new, Options{})
	d := newDevice(t, old, len(new), 256, patch.LargeWords)
	d.old.fault = errRange
	if s := d.apply(r.Payload, 300); s != patch.Failed || d.Err() != patch.ErrRead {
		t.Errorf("status %d, %v", s, d.Err())
	}
}

// TestCancel: the search ends when its context does.
func TestCancel(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	stop()
	old, new := pairOf(patch.ArchXtensa, 20)
	if _, err := Make(ctx, old, new, Options{}); err == nil {
		t.Error("a cancelled search made a patch")
	}
}

// TestWorkingSet: what the documents say of RAM.
func TestWorkingSet(t *testing.T) {
	for _, v := range []struct {
		profile uint8
		most    int
	}{{patch.ProfileLarge, 16384}, {patch.ProfileSmall, 8192}} {
		n := RAM(v.profile)
		t.Logf("profile %d: %d bytes", v.profile, n)
		if n > v.most {
			t.Errorf("profile %d takes %d bytes, not %d", v.profile, n, v.most)
		}
	}
}
