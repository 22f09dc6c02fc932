package delta

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/internal/testenv"
)

func realImage(t *testing.T, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(filepath.Join(testenv.Shared(t, "firmware"), filepath.FromSlash(path)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestRealImages: real releases, against the best tool that a device of 16 KiB of RAM
// can apply; all of them are bench/delta's. Everything that is sent counts.
func TestRealImages(t *testing.T) {
	const pybricks, nerdminer = "pybricks-primehub-stm32f4/", "nerdminer-esp32c3/"
	for _, v := range []struct {
		old, new string
		arch     string
		best     int // bytes; of the image itself where there is no old one
		percent  int // of it at most
	}{
		{pybricks + "7.27.0/firmware-base.bin", pybricks + "7.28.0/firmware-base.bin", "thumb", 19936, 40},
		{pybricks + "6.2.0/firmware-base.bin", pybricks + "7.28.0/firmware-base.bin", "thumb", 173650, 92},
		{nerdminer + "V1.7.0-2cabf4c/firmware.bin", nerdminer + "V1.7.0-9bf9108/firmware.bin", "riscv", 14005, 15},
		{"", pybricks + "7.28.0/firmware-base.bin", "none", 296756, 68},
	} {
		var old []byte
		if v.old != "" {
			old = realImage(t, v.old)
		}
		img := realImage(t, v.new)
		r := mustMake(t, old, img, Options{})
		sent, err := NewFile(old, img, r).Sent(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s to %s: %d bytes, %.3f of %d (%s)", v.old, v.new, sent, float64(sent)/float64(v.best), v.best, r.Variant)
		if 100*sent > v.percent*v.best || r.Report.Arch != v.arch {
			t.Errorf("%s to %s: %d bytes, more than %d %% of %d; %s", v.old, v.new, sent, v.percent, v.best, r.Report.Arch)
		}
	}
}

// TestRealEdits: real images with random edits come out as they are meant to.
func TestRealEdits(t *testing.T) {
	img := realImage(t, "pybricks-primehub-stm32f4/7.2.0/firmware-base.bin")
	for i := range 3 {
		r := rand.New(rand.NewPCG(uint64(i), 2))
		old, new := edited(r, img), edited(r, img)
		res := mustMake(t, old, new[:len(new)-r.IntN(1000)], Options{RestartEvery: 512})
		t.Logf("seed %d: %d bytes in the patch, %d restart points", i, len(res.Payload), res.Restarts)
	}
}
