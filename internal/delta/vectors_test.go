package delta

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/core/patch"
)

var update = flag.Bool("update", false, "write the vectors anew")

const vectors = "../../testdata/vectors/patch"

// vectorFiles are the golden patches, and the images that they are of.
var vectorFiles = []struct {
	name, old, new string
	o              Options
}{
	{"xtensa", "xtensa-old.bin", "xtensa-new.bin", Options{}},
	{"xtensa-small", "xtensa-old.bin", "xtensa-new.bin", Options{Profile: patch.ProfileSmall}},
	{"xtensa-restarts", "xtensa-old.bin", "xtensa-new.bin", Options{RestartEvery: 64}},
	{"xtensa-kept", "xtensa-old.bin", "xtensa-new.bin", Options{RestartEvery: 64, Keep: true}},
	{"riscv", "riscv-old.bin", "riscv-new.bin", Options{}},
	{"thumb", "thumb-old.bin", "thumb-new.bin", Options{}},
	{"thumb-small", "thumb-old.bin", "thumb-new.bin", Options{Profile: patch.ProfileSmall}},
	{"thumb-alone", "", "thumb-new.bin", Options{}},
	{"other", "thumb-old.bin", "xtensa-new.bin", Options{}},
}

// measured are those that a program inside the emulated chip applies
// (go run ./internal/tinygocheck -measure); it can embed what is beside it only.
var measured = map[string]string{"old.bin": "thumb-old.bin", "new.bin": "thumb-new.bin", "small.patch": "thumb-small.patch"}

const measuredDir = "../../tools/tinygo/check/measure/patch"

// TestVectors: the golden patches make what they were made for, whatever the encoder
// does today. core/patch has the same, and takes them apart.
func TestVectors(t *testing.T) {
	if *update {
		writeVectors(t)
	}
	for _, v := range vectorFiles {
		p, err := os.ReadFile(filepath.Join(vectors, v.name+".patch"))
		if err != nil {
			t.Fatal(err)
		}
		f, err := ParseFile(p)
		if err != nil {
			t.Fatalf("%s: %v", v.name, err)
		}
		if !bytes.Equal(f.Encode(), p) {
			t.Errorf("%s: written again it is another file", v.name)
		}
		got, err := f.Apply(readVector(t, v.old))
		if err != nil || !bytes.Equal(got, readVector(t, v.new)) {
			t.Errorf("%s: %v", v.name, err)
		}
	}
	for here, there := range measured {
		p, err := os.ReadFile(filepath.Join(measuredDir, here))
		if err != nil || !bytes.Equal(p, readVector(t, there)) {
			t.Errorf("%s/%s is not %s: %v", measuredDir, here, there, err)
		}
	}
}

func readVector(t *testing.T, name string) []byte {
	if name == "" {
		return nil
	}
	p, err := os.ReadFile(filepath.Join(vectors, name))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func writeVectors(t *testing.T) {
	write := func(name string, p []byte) {
		if err := os.WriteFile(filepath.Join(vectors, name), p, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(vectors, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, arch := range archs {
		old, new := pairOf(arch, 120)
		write(archNames[arch]+"-old.bin", old)
		write(archNames[arch]+"-new.bin", new)
	}
	for _, v := range vectorFiles {
		old, new := readVector(t, v.old), readVector(t, v.new)
		write(v.name+".patch", NewFile(old, new, mustMake(t, old, new, v.o)).Encode())
	}
	for here, there := range measured {
		if err := os.WriteFile(filepath.Join(measuredDir, here), readVector(t, there), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
