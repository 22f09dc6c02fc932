package delta

import (
	"bytes"
	"testing"
)

// FuzzParseFile: what is taken as a patch file is written as the same again, and applying
// it never does more than fail.
func FuzzParseFile(f *testing.F) {
	old, new := pairOf(archs[0], 4)
	f.Add(NewFile(old, new, mustMake(f, old, new, Options{})).Encode())
	f.Add([]byte("RNLP"))
	f.Fuzz(func(t *testing.T, p []byte) {
		file, err := ParseFile(p)
		if err != nil {
			return
		}
		if !bytes.Equal(file.Encode(), p) {
			t.Fatal("another file")
		}
		if file.NewSize > 1<<20 {
			return // no bad patch, but a slow one
		}
		img, err := file.Apply(old)
		if err == nil && !bytes.Equal(img, new) {
			t.Fatal("another image")
		}
	})
}

// FuzzMake: whatever two images hold, the patch makes the one of the other.
func FuzzMake(f *testing.F) {
	old, new := pairOf(archs[1], 4)
	f.Add(old, new, false)
	f.Add([]byte(nil), []byte{1}, true)
	f.Fuzz(func(t *testing.T, old, new []byte, small bool) {
		o := Options{RestartEvery: 16}
		if small {
			o.Profile = 2
		}
		mustMake(t, old, new, o)
	})
}
