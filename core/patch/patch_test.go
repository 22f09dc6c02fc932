package patch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

const vectors = "../../testdata/vectors/patch/"

// golden are the patches that any applier must take, with the images that they are of.
var golden = []struct{ name, old, new string }{
	{"xtensa", "xtensa-old.bin", "xtensa-new.bin"},
	{"xtensa-small", "xtensa-old.bin", "xtensa-new.bin"},
	{"xtensa-restarts", "xtensa-old.bin", "xtensa-new.bin"},
	{"xtensa-kept", "xtensa-old.bin", "xtensa-new.bin"},
	{"riscv", "riscv-old.bin", "riscv-new.bin"},
	{"thumb", "thumb-old.bin", "thumb-new.bin"},
	{"thumb-small", "thumb-old.bin", "thumb-new.bin"},
	{"thumb-alone", "", "thumb-new.bin"},
	{"other", "thumb-old.bin", "xtensa-new.bin"},
}

func read(t testing.TB, name string) []byte {
	if name == "" {
		return nil
	}
	return chiptest.Read(t, vectors+name)
}

// payload is a patch file without its header (docs/format/patch.md).
func payload(t testing.TB, name string) (p []byte, profile uint8) {
	f := read(t, name+".patch")
	if string(f[:4]) != "RNLP" || binary.LittleEndian.Uint32(f[16:]) != uint32(len(f)-84) {
		t.Fatalf("%s is no patch file", name)
	}
	return f[84:], f[5]
}

var errOutside = errors.New("outside of what may be read")

// image is a slot that minds what is read of it.
type image struct {
	data    []byte
	outside int
	fail    bool
}

func (m *image) ReadAt(p []byte, off uint32) error {
	if m.fail {
		return errOutside
	}
	if uint64(off)+uint64(len(p)) > uint64(len(m.data)) {
		m.outside++
		return errOutside
	}
	copy(p, m.data[off:])
	return nil
}

// rig is an applier and what it works on.
type rig struct {
	a        Applier
	old, new image
	linkAt   []uint32
	linkPos  []uint32
	models   [][]byte
	steps    int
}

func newRig(old []byte, size, out, words int) *rig {
	r := &rig{old: image{data: old}}
	mem := make([]uint16, words)
	for i := range mem {
		mem[i] = 0xA5A5 // what was there before must not matter
	}
	r.a.Begin(Config{Old: &r.old, OldSize: uint32(len(old)), New: &r.new, NewSize: uint32(size), Out: make([]byte, out), Memory: mem})
	return r
}

// apply feeds p in pieces of n until the applier stops.
func (r *rig) apply(p []byte, n int) Status {
	for {
		r.steps++
		switch s := r.a.Step(); s {
		case Hungry:
			if n > len(p) {
				n = len(p)
			}
			p = p[r.a.Feed(p[:n]):]
			if len(p) == 0 {
				r.a.End()
			}
		case Full:
			r.new.data = append(r.new.data, r.a.Output()...)
			r.a.Wrote()
		case Restart:
			m := make([]byte, r.a.SnapshotLen())
			r.a.Snapshot(m, 0)
			r.linkAt, r.linkPos, r.models = append(r.linkAt, r.a.LinkAt()), append(r.linkPos, r.a.Made()), append(r.models, m)
		case Done:
			r.new.data = append(r.new.data, r.a.Output()...)
			r.a.Wrote()
			if len(p) > 0 && r.a.Feed(p) > 0 {
				return r.a.Step()
			}
			return s
		default:
			return s
		}
	}
}

func wordsOf(profile uint8) int {
	if profile == ProfileSmall {
		return SmallWords
	}
	return LargeWords
}

// TestGolden: every golden patch makes its image, in whatever pieces it comes.
func TestGolden(t *testing.T) {
	for _, v := range golden {
		old, want := read(t, v.old), read(t, v.new)
		p, profile := payload(t, v.name)
		for _, n := range []int{1, 64, len(p)} {
			r := newRig(old, len(want), MinOut+n%300, wordsOf(profile))
			if s := r.apply(p, n); s != Done || !bytes.Equal(r.new.data, want) {
				t.Errorf("%s in pieces of %d: status %d, %v", v.name, n, s, r.a.Err())
			}
			if r.old.outside+r.new.outside > 0 {
				t.Errorf("%s: reads outside of the images", v.name)
			}
		}
	}
}

// TestGoldenRestarts: from each restart point the same image comes out, with the
// snapshot where the model is kept; with another it does not.
func TestGoldenRestarts(t *testing.T) {
	for _, v := range golden[2:4] {
		old, want := read(t, v.old), read(t, v.new)
		p, _ := payload(t, v.name)
		first := newRig(old, len(want), 256, LargeWords)
		first.apply(p, 100)
		if len(first.linkAt) == 0 {
			t.Errorf("%s has no restart point", v.name)
		}
		for i, at := range first.linkAt {
			for _, good := range []bool{true, false} {
				r := newRig(old, len(want), 256, LargeWords)
				if err := r.a.ResumeAt(first.linkPos[i]); err != 0 {
					t.Fatal(err)
				}
				if s := r.apply(p, 100); s != Seek {
					t.Fatalf("status %d, %v", s, r.a.Err())
				}
				if r.a.Kept() != (v.name == "xtensa-kept") {
					t.Errorf("%s: kept is %v", v.name, r.a.Kept())
				}
				if r.a.Kept() && good {
					r.a.Restore(first.models[i], 0)
				}
				r.new.data = append(r.new.data, want[:first.linkPos[i]]...)
				r.apply(p[at:], 100)
				if same := bytes.Equal(r.new.data, want); same != (good || !r.a.Kept()) {
					t.Errorf("%s from %d, good snapshot %v: the image came out: %v (%v)", v.name, at, good, same, r.a.Err())
				}
			}
		}
	}
}

// TestRefused: what is wrong with a patch, or with the call, has an error of its own.
func TestRefused(t *testing.T) {
	old, want := read(t, "xtensa-old.bin"), read(t, "xtensa-new.bin")
	p, _ := payload(t, "xtensa")
	small, _ := payload(t, "xtensa-small")
	with := func(at int, b byte) []byte {
		q := append([]byte{}, p...)
		q[at] = b
		return q
	}
	for _, c := range []struct {
		name  string
		p     []byte
		size  int
		words int
		want  Error
	}{
		{"another version", with(0, 2), len(want), LargeWords, ErrVersion},
		{"an unknown layout", with(1, byte(Layouts)), len(want), LargeWords, ErrFormat},
		{"another size", p, len(want) + 1, LargeWords, ErrSize},
		{"too little memory", p, len(want), SmallWords, ErrMemory},
		{"no memory", small, len(want), SmallWords / 2, ErrMemory},
		{"nothing", nil, len(want), LargeWords, ErrVersion},
		{"cut in the middle", p[:len(p)/2], len(want), LargeWords, 0},
		{"a byte at the end", append(append([]byte{}, p...), make([]byte, 200)...), len(want), LargeWords, ErrLong},
	} {
		r := newRig(old, c.size, 256, c.words)
		if s := r.apply(c.p, 50); s != Failed || (c.want != 0 && r.a.Err() != c.want) {
			t.Errorf("%s: status %d, %v", c.name, s, r.a.Err())
		}
	}

	r := newRig(old, len(want), 256, LargeWords)
	r.old.fail = true
	if s := r.apply(p, 50); s != Failed || r.a.Err() != ErrRead {
		t.Errorf("an old image that can't be read: %v", r.a.Err())
	}
	var a Applier
	for _, c := range []Config{
		{New: &r.new, NewSize: 5, Memory: make([]uint16, LargeWords)},
		{NewSize: 5, Out: make([]byte, MinOut)},
		{New: &r.new, OldSize: 1, NewSize: 5, Out: make([]byte, MinOut)},
		{New: &r.new, NewSize: MaxImage + 1, Out: make([]byte, MinOut)},
	} {
		if a.Begin(c) != ErrConfig {
			t.Errorf("%+v is taken", c)
		}
	}
	for _, pos := range []uint32{0, 1, grain + 1, uint32(len(want)+grain) / grain * grain} {
		if r := newRig(old, len(want), 256, LargeWords); r.a.ResumeAt(pos) != ErrResume {
			t.Errorf("a restart point at %d is taken", pos)
		}
	}
	for e := Error(0); e <= ErrResume+1; e++ {
		if e.Error() == "" {
			t.Errorf("error %d has no text", e)
		}
	}
}

// TestAllocs: an applier allocates nothing.
func TestAllocs(t *testing.T) {
	old, want := read(t, "xtensa-old.bin"), read(t, "xtensa-new.bin")
	p, _ := payload(t, "xtensa")
	r := newRig(old, len(want), 256, LargeWords)
	r.new.data = make([]byte, 0, len(want))
	c := r.a.c
	n := chiptest.Allocs(3, func() {
		r.new.data = r.new.data[:0]
		r.a.Begin(c)
		r.apply(p, 100)
	})
	if n != 0 {
		t.Errorf("%v allocations for a patch", n)
	}
}

// TestStretch: the fixed-point logistic functions are each other's inverse, and monotonic.
func TestStretch(t *testing.T) {
	last := uint32(0)
	for x := int32(-squashMax); x <= squashMax; x++ {
		p := squash(x)
		if p < last || p == 0 || p >= 1<<probBits {
			t.Fatalf("squash(%d) is %d after %d", x, p, last)
		}
		last = p
		if x > -1900 && x < 1900 {
			if d := stretch(p&^3+2) - x; d > 40 || d < -40 {
				t.Errorf("stretch(squash(%d)) is %d away", x, d)
			}
		}
	}
	for _, c := range []uint16{0, 3, 1, 0xFFFF, counterStart} {
		for bit := uint32(0); bit < 2; bit++ {
			v := c
			for i := 0; i < 1000; i++ {
				v = counterMove(v, fastLimit, bit)
				if p := counterP(v); p == 0 || p >= 1<<probBits {
					t.Fatalf("counter %#x has the probability %d", v, p)
				}
			}
		}
	}
}

// A snapshot's length is what a port sets scratch sectors aside for (docs/porting.md).
func TestSnapshotLen(t *testing.T) {
	var most [3]uint32
	for i := range Layouts {
		var a Applier
		profile := ProfileLarge
		if i >= SmallLayouts {
			profile = ProfileSmall
		}
		a.c.Memory = make([]uint16, wordsOf(uint8(profile)))
		if err := a.divide(i); err != 0 {
			t.Fatal(err)
		}
		most[profile] = max(most[profile], a.SnapshotLen())
	}
	if most[ProfileSmall] != 5398 || most[ProfileLarge] != 12038 {
		t.Errorf("small %d, large %d bytes", most[ProfileSmall], most[ProfileLarge])
	}
}
