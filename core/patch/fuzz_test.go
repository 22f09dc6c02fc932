//go:build !tinygo

package patch

import "testing"

// FuzzApply: whatever a patch says, nothing outside of the images is read, nothing is
// made beyond the new image's size, and it ends.
func FuzzApply(f *testing.F) {
	for i, v := range golden {
		p, _ := payload(f, v.name)
		f.Add(p, uint8(i), uint8(100), uint16(len(read(f, v.new))), uint16(0))
	}
	olds := [][]byte{read(f, "xtensa-old.bin"), read(f, "riscv-old.bin"), read(f, "thumb-old.bin"), nil, {0xE9, 8, 0, 0}}
	f.Fuzz(func(t *testing.T, p []byte, which, piece uint8, size, resume uint16) {
		old := olds[int(which)%len(olds)]
		r := newRig(old, int(size), MinOut+int(piece), LargeWords)
		if resume > 0 {
			r.a.ResumeAt(uint32(resume) / grain * grain)
		}
		n := 1 + int(piece)
		s := r.apply(p, n)
		if s == Seek {
			r.new.data = make([]byte, r.a.Made())
			s = r.apply(p, n)
		}
		if s != Done && s != Failed {
			t.Fatalf("status %d", s)
		}
		if r.old.outside+r.new.outside > 0 {
			t.Fatal("a read outside of an image")
		}
		if r.a.Made() > uint32(size) || s == Done && len(r.new.data) != int(size) {
			t.Fatalf("%d bytes made of %d", r.a.Made(), size)
		}
		if most := 2*(len(p)+int(size)) + 100; r.steps > most {
			t.Fatalf("%d steps for %d bytes of patch and %d of image", r.steps, len(p), size)
		}
	})
}

// FuzzRestore: whatever a snapshot holds, the same.
func FuzzRestore(f *testing.F) {
	old, want := read(f, "xtensa-old.bin"), read(f, "xtensa-new.bin")
	p, _ := payload(f, "xtensa-kept")
	first := newRig(old, len(want), 256, LargeWords)
	first.apply(p, 100)
	f.Add(first.models[0], uint16(0))
	f.Add([]byte{0xFF, 0, 1}, uint16(9))
	f.Fuzz(func(t *testing.T, model []byte, off uint16) {
		r := newRig(old, len(want), 256, LargeWords)
		r.a.ResumeAt(first.linkPos[0])
		r.apply(p, 100)
		r.a.Restore(model, uint32(off)&^1)
		r.new.data = append(r.new.data, want[:first.linkPos[0]]...)
		if s := r.apply(p[first.linkAt[0]:], 100); s != Done && s != Failed {
			t.Fatalf("status %d", s)
		}
		if r.old.outside+r.new.outside > 0 || r.a.Made() > uint32(len(want)) {
			t.Fatal("outside of an image")
		}
	})
}
