package nor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

const openVariable = "NOR_TEST_OPEN"

// TestMain is also the second process of TestSecondProcessIsRefused.
func TestMain(m *testing.M) {
	if path := os.Getenv(openVariable); path != "" {
		c, err := Open(path, Config{})
		if err == nil {
			err = c.Close()
		}
		fmt.Println("opened:", err, errors.Is(err, ErrInUse))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func bytesOf(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 0))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.UintN(256))
	}
	return p
}

func created(t *testing.T, cfg Config) (*Chip, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flash.bin")
	c, err := Create(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() }) // closed by most tests; again is no error
	return c, path
}

func check(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestCreateIsABlankChip(t *testing.T) {
	c, path := created(t, Config{Size: 2 << 20})
	check(t, c.Close())
	got, err := os.ReadFile(path)
	if err != nil || len(got) != 2<<20 || bytes.Count(got, []byte{0xFF}) != len(got) {
		t.Errorf("%d bytes, %v: want 2 MiB of FF", len(got), err)
	}
	if _, err := Create(path, Config{Size: 2 << 20}); !errors.Is(err, os.ErrExist) {
		t.Errorf("created over an existing file: %v", err)
	}
	if again, err := os.ReadFile(path); err != nil || len(again) != 2<<20 {
		t.Errorf("the refused Create left %d bytes, %v", len(again), err)
	}
}

func TestContentSurvivesByteForByte(t *testing.T) {
	for _, cfg := range []Config{{Size: 1 << 20, Seed: 1}, {Size: 1 << 20, Seed: 1, Encrypt: true}} {
		c, path := created(t, cfg)
		data := bytesOf(1, 10000&^15)
		check(t, c.Erase(0, 65536), c.Program(data, 0x1000), c.Load(0x80000, data[:4096]), c.Erase(0x2000, 4096), c.Sync())
		want := append([]byte(nil), c.Raw()...)
		atOnce, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(atOnce, want) {
			t.Errorf("encrypt %v: the file is not the cells while the chip is open (%v)", cfg.Encrypt, err)
		}
		check(t, c.Close())
		d, err := Open(path, cfg)
		check(t, err)
		if !bytes.Equal(d.Raw(), want) || d.Geometry() != c.Geometry() {
			t.Errorf("encrypt %v: the opened chip holds something else", cfg.Encrypt)
		}
		p := make([]byte, 4096)
		if err := d.ReadAt(p, 0x1000); err != nil || !bytes.Equal(p, data[:4096]) {
			t.Errorf("encrypt %v: reads as something else (%v)", cfg.Encrypt, err)
		}
		if err := d.Program(p, 0x1000); err != flash.ErrNotBlank {
			t.Errorf("encrypt %v: forgot what was programmed: %v", cfg.Encrypt, err)
		}
		check(t, d.Program(p, 0x2000), d.Close())
		back, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(back, d.Raw()) {
			t.Errorf("encrypt %v: the file is not the cells after Close (%v)", cfg.Encrypt, err)
		}
	}
}

// What a cut left is what the next process finds.
func TestTearsReachTheFile(t *testing.T) {
	c, path := created(t, Config{Size: 1 << 20, Seed: 2})
	check(t, c.Program(bytesOf(2, 8192), 0))
	for _, tear := range []struct {
		op      func() error
		disturb bool
	}{
		{func() error { return c.Program(bytesOf(3, 256), 0x8000) }, false},
		{func() error { return c.Program(bytesOf(4, 256), 0x9000) }, true},
		{func() error { return c.Erase(0x1000, 0x1000) }, false},
	} {
		c.SetCut(func(op Op) Cut { return Cut{When: CutInside, Done: op.Len / 2, Disturb: tear.disturb} })
		before := append([]byte(nil), c.Raw()...)
		if err := tear.op(); err != flash.ErrPower {
			t.Fatal(err)
		}
		c.PowerOn()
		got, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(got, c.Raw()) {
			t.Errorf("the file is not what the cut left (%v)", err)
		}
		if bytes.Equal(got, before) {
			t.Error("the cut left nothing")
		}
	}
}

func TestSecondProcessIsRefused(t *testing.T) {
	c, path := created(t, Config{Size: 1 << 20})
	elsewhere := func() string {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), openVariable+"="+path)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return strings.TrimSpace(string(out))
	}
	if got := elsewhere(); got != "opened: "+ErrInUse.Error()+" true" {
		t.Errorf("while it is open here: %q", got)
	}
	if _, err := Open(path, Config{}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second time in this process: %v", err)
	}
	check(t, c.Program([]byte{1}, 0)) // the refused ones took nothing away
	check(t, c.Close())
	if got := elsewhere(); got != "opened: <nil> false" {
		t.Errorf("after Close: %q", got)
	}
}

func TestFilesThatAreNoChip(t *testing.T) {
	for _, size := range []int64{0, 1, 4096, 1<<20 - 65536, 1<<20 + 1, 1<<20 + 4096, 4<<20 - 1, 128<<20 + 65536} {
		path := filepath.Join(t.TempDir(), "flash.bin")
		check(t, os.WriteFile(path, nil, 0o600), os.Truncate(path, size))
		_, err := Open(path, Config{})
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%s has %d bytes: no whole flash chip", path, size)) {
			t.Errorf("%d bytes: %v", size, err)
		}
		check(t, os.Remove(path)) // and is not held open
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none.bin"), Config{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(t.TempDir(), Config{}); err == nil {
		t.Error("a folder opens as a chip")
	}
}

// Create makes nothing that Open refuses.
func TestCreateRefusesWhatOpenWould(t *testing.T) {
	for _, cfg := range []Config{{Size: 65536}, {Size: 1<<20 + 4096}, {Size: 1 << 20, EraseSize: 100}, {Size: 1 << 20, ProgramSize: 3}} {
		path := filepath.Join(t.TempDir(), "flash.bin")
		if _, err := Create(path, cfg); err == nil {
			t.Errorf("%+v is created", cfg)
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%+v leaves a file: %v", cfg, err)
		}
	}
	path := filepath.Join(t.TempDir(), "missing", "flash.bin")
	if _, err := Create(path, Config{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a folder that is not there: %v", err)
	}
}

func TestOpenRefusesAConfigThatDoesNotFit(t *testing.T) {
	c, path := created(t, Config{Size: 1<<20 + 65536})
	check(t, c.Close())
	if _, err := Open(path, Config{EraseSize: 128 << 10, BlockEraseSize: NoBlocks}); err == nil {
		t.Error("8.5 sectors are opened")
	}
	d, err := Open(path, Config{Size: 4 << 20}) // the file's length is the size
	check(t, err)
	if g := d.Geometry(); g.Size != 1<<20+65536 {
		t.Errorf("size %d", g.Size)
	}
	check(t, d.Close())
}

func TestClosedChipChangesNothing(t *testing.T) {
	c, path := created(t, Config{Size: 1 << 20})
	check(t, c.Program([]byte{1, 2, 3}, 0), c.Close(), c.Close())
	for name, err := range map[string]error{
		"program": c.Program([]byte{4}, 100), "erase": c.Erase(0, 4096), "load": c.Load(0, []byte{5}), "sync": c.Sync(),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close: %v", name, err)
		}
	}
	p := make([]byte, 3)
	if err := c.ReadAt(p, 0); err != nil || !bytes.Equal(p, []byte{1, 2, 3}) {
		t.Errorf("read after Close: % x, %v", p, err)
	}
	d := c.Clone()
	check(t, d.Erase(0, 4096), d.Close(), d.Erase(0, 4096)) // a clone never had a file
	d2, err := Open(path, Config{})
	check(t, err, d2.ReadAt(p, 0), d2.Close())
	if !bytes.Equal(p, []byte{1, 2, 3}) {
		t.Errorf("the file holds % x", p)
	}
}

// No caller can reach a cell that is cleared and counts as blank; the rule holds
// below the bookkeeping all the same.
func TestCellsOnlyLoseBits(t *testing.T) {
	c, _ := created(t, Config{Size: 1 << 20})
	check(t, c.Program([]byte{0xF0, 0x3C}, 0))
	clear(c.used)
	check(t, c.Program([]byte{0xCC, 0xFF}, 0))
	if !bytes.Equal(c.Raw()[:2], []byte{0xC0, 0x3C}) {
		t.Errorf("% x, want c0 3c: old AND new", c.Raw()[:2])
	}
}

// badDisk fails from the given write on: short writes, as a full disk gives.
type badDisk struct {
	disk
	good int
	sync error
}

func (d *badDisk) WriteAt(p []byte, off int64) (int, error) {
	if d.good--; d.good < 0 {
		n, err := d.disk.WriteAt(p[:len(p)/2], off)
		return n, errors.Join(err, syscall.ENOSPC)
	}
	return d.disk.WriteAt(p, off)
}

func (d *badDisk) Sync() error { return errors.Join(d.disk.Sync(), d.sync) }

var _ io.WriterAt = (*badDisk)(nil)

// Every call says that the disk failed, from the write on that did not arrive: no
// updater may go on as if it had.
func TestDiskErrorsSurface(t *testing.T) {
	for name, call := range map[string]func(*Chip) error{
		"program": func(c *Chip) error { return c.Program(make([]byte, 1024), 0) },
		"erase":   func(c *Chip) error { return c.Erase(0, 3*4096) },
		"load":    func(c *Chip) error { return errors.Join(c.Load(0, make([]byte, 9)), c.Load(9, make([]byte, 9))) },
	} {
		c, path := created(t, Config{Size: 1 << 20})
		check(t, c.Load(0x1000, make([]byte, 8192)))
		c.file = &badDisk{disk: c.file, good: 1}
		ops := 0
		c.SetLog(func(Op) { ops++ })
		if err := call(c); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s: %v", name, err)
		}
		if ops > 2 {
			t.Errorf("%s: %d operations, the second failed", name, ops)
		}
		for again, err := range map[string]error{
			"program": c.Program([]byte{0}, 0x20000), "erase": c.Erase(0x20000, 4096), "load": c.Load(0, []byte{1}), "sync": c.Sync(),
		} {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("%s after a failed %s: %v", again, name, err)
			}
		}
		if c.Raw()[0x20000] != 0xFF {
			t.Errorf("%s: went on in memory after the disk failed", name)
		}
		if err := c.Close(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("close after a failed %s: %v", name, err)
		}
		d, err := Open(path, Config{}) // closed and unlocked all the same
		check(t, err, d.Close())
	}
}

func TestSyncErrorSurfaces(t *testing.T) {
	c, _ := created(t, Config{Size: 1 << 20})
	c.file = &badDisk{disk: c.file, good: 99, sync: syscall.EIO}
	check(t, c.Program([]byte{1}, 0))
	if err := c.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("sync: %v", err)
	}
	if err := c.Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v", err)
	}
}

// A cut operation whose tear did not reach the file says so afterwards.
func TestDiskErrorInsideACutSurfacesLater(t *testing.T) {
	c, _ := created(t, Config{Size: 1 << 20})
	c.file = &badDisk{disk: c.file}
	c.CutPower()
	if err := c.Program(make([]byte, 256), 0); err != flash.ErrPower {
		t.Fatalf("program: %v", err)
	}
	c.PowerOn()
	if err := c.Erase(0, 4096); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("erase after it: %v", err)
	}
}
