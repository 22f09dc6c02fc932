package dir

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/fleet"
)

var ctx = context.Background()

func openAt(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Open(Options{Path: filepath.Join(path, "blobs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStore(t *testing.T) {
	blobtest.Run(t, func(t testing.TB, dir string) blob.Store { return openAt(t, dir) })
}

// faulty counts the steps at which a disk can fail, and fails some.
type faulty struct {
	real   ops
	n      int              // steps so far
	fails  func(k int) bool // of step k, from 0
	err    error
	steps  []string
	short  bool // a failing write writes half
	failed string
}

func (f *faulty) step(name string) error {
	k := f.n
	f.n++
	f.steps = append(f.steps, name)
	if f.fails != nil && f.fails(k) {
		if f.failed == "" {
			f.failed = name
		}
		return fmt.Errorf("%s fails: %w", name, f.err)
	}
	return nil
}

func (f *faulty) ops() ops {
	return ops{
		create: func(dir string) (file, string, error) {
			if err := f.step("create"); err != nil {
				return nil, "", err
			}
			g, path, err := f.real.create(dir)
			return &faultyFile{g, f}, path, err
		},
		rename: func(from, to string) error {
			if err := f.step("rename"); err != nil {
				return err
			}
			return f.real.rename(from, to)
		},
		remove: func(path string) error {
			if err := f.step("remove"); err != nil {
				return err
			}
			return f.real.remove(path)
		},
		syncDir: func(path string) error {
			if err := f.step("syncDir"); err != nil {
				return err
			}
			return f.real.syncDir(path)
		},
		free: func(path string) (int64, error) {
			if err := f.step("free"); err != nil {
				return 0, err
			}
			return f.real.free(path)
		},
	}
}

type faultyFile struct {
	file
	f *faulty
}

func (g *faultyFile) Write(b []byte) (int, error) {
	if err := g.f.step("write"); err != nil {
		n := 0
		if g.f.short {
			n, _ = g.file.Write(b[:len(b)/2])
		}
		return n, err
	}
	return g.file.Write(b)
}

func (g *faultyFile) Allocate(n int64) error {
	if err := g.f.step("allocate"); err != nil {
		return err
	}
	return g.file.Allocate(n)
}

func (g *faultyFile) Truncate(n int64) error {
	if err := g.f.step("truncate"); err != nil {
		return err
	}
	return g.file.Truncate(n)
}

func (g *faultyFile) Chmod(mode os.FileMode) error {
	if err := g.f.step("chmod"); err != nil {
		return err
	}
	return g.file.Chmod(mode)
}

func (g *faultyFile) Sync() error {
	if err := g.f.step("sync"); err != nil {
		return err
	}
	return g.file.Sync()
}

func (g *faultyFile) Close() error {
	g.file.Close() // in any case: the test leaks no descriptor
	return g.f.step("close")
}

// everything is each file below the folder, tmp included.
func everything(t *testing.T, d *Dir) (list []string) {
	t.Helper()
	err := filepath.WalkDir(d.path, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			list = append(list, e.Name())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// sweep runs put with each step failing in turn, until no step is left that
// could, and calls check after each.
func sweep(t *testing.T, prepare func(*Dir), size int64, crash bool, check func(k int, f *faulty, d *Dir, created bool, err error)) {
	t.Helper()
	content := blobtest.Content(7, 300_000)
	for k := 0; ; k++ {
		for _, short := range []bool{false, true} {
			path := filepath.Join(t.TempDir(), "blobs")
			if prepare != nil {
				d, err := open(Options{Path: path, Reserve: -1}, system)
				if err != nil {
					t.Fatal(err)
				}
				prepare(d)
			}
			f := &faulty{real: system, err: syscall.EIO, short: short}
			d, err := open(Options{Path: path, Reserve: -1}, f.ops())
			if err != nil {
				t.Fatal(err)
			}
			start := f.n
			f.fails = func(i int) bool { return i-start == k || crash && i-start > k }
			_, created, err := d.Put(ctx, bytes.NewReader(content), size)
			f.fails = nil
			check(k, f, d, created, err)
			if f.failed == "" {
				if k < 8 {
					t.Fatalf("only %d steps could fail", k)
				}
				t.Logf("%d steps, each failed once: %s", k, strings.Join(f.steps[start:], " "))
				return
			}
		}
	}
}

// Whatever step fails, nothing is left behind.
func TestEveryStepFails(t *testing.T) {
	for _, size := range []int64{300_000, -1} {
		sweep(t, nil, size, false, func(k int, f *faulty, d *Dir, created bool, err error) {
			left := everything(t, d)
			if f.failed == "" {
				if err != nil || !created || len(left) != 1 {
					t.Errorf("no step failed: %v %v %v", created, err, left)
				}
				return
			}
			if err == nil || created || fleet.CodeOf(err) != fleet.CodeInternal || !errors.Is(err, syscall.EIO) {
				t.Errorf("step %d, %s: %v %v", k, f.failed, created, err)
			}
			if len(left) != 0 {
				t.Errorf("step %d, %s failed and left %v", k, f.failed, left)
			}
		})
	}
}

// Whatever step the machine stops at, the next start finds the whole blob or
// none, and no rest.
func TestCrashAtEveryStep(t *testing.T) {
	content := blobtest.Content(7, 300_000)
	digest := fleet.Digest(sha256.Sum256(content))
	sweep(t, nil, -1, true, func(k int, f *faulty, before *Dir, created bool, _ error) {
		d, err := open(Options{Path: before.path, Reserve: -1}, system)
		if err != nil {
			t.Fatal(err)
		}
		switch left := everything(t, d); {
		case len(left) == 0:
		case len(left) == 1 && d.Verify(ctx, digest) == nil:
		default:
			t.Errorf("step %d, %s: %v", k, f.failed, left)
		}
		if _, _, err := d.Put(ctx, bytes.NewReader(content), -1); err != nil || d.Verify(ctx, digest) != nil {
			t.Errorf("step %d, %s: not after the start either: %v", k, f.failed, err)
		}
		if err := d.Delete(ctx, digest); err != nil {
			t.Error(err)
		}
	})
}

// A damaged blob is replaced; a failure on the way leaves a blob of that name, old or new.
func TestDamagedIsReplaced(t *testing.T) {
	content := blobtest.Content(7, 300_000)
	digest := fleet.Digest(sha256.Sum256(content))
	damage := map[string][]byte{"cut": content[:1000], "altered": append(bytes.Clone(content[:299_999]), content[0]^content[299_999]^1), "empty": {}}
	for name, bad := range damage {
		sweep(t, func(d *Dir) {
			if err := os.WriteFile(d.name(digest), bad, 0o600); err != nil {
				t.Fatal(err)
			}
		}, 300_000, false, func(k int, f *faulty, d *Dir, created bool, err error) {
			verdict := d.Verify(ctx, digest)
			if f.failed == "" && (err != nil || created || verdict != nil) {
				t.Errorf("%s: %v %v %v", name, created, err, verdict)
			}
			if left := everything(t, d); len(left) != 1 {
				t.Errorf("%s: step %d, %s: %v", name, k, f.failed, left)
			}
			if fleet.CodeOf(verdict) == fleet.CodeNotFound {
				t.Errorf("%s: step %d, %s: it is gone", name, k, f.failed)
			}
		})
	}
}

// The order that a crash demands: bytes, name, folder.
func TestOrderOfSteps(t *testing.T) {
	f := &faulty{real: system}
	d, err := open(Options{Path: t.TempDir(), Reserve: -1}, f.ops())
	if err != nil {
		t.Fatal(err)
	}
	f.steps = nil
	b := blobtest.Content(1, 1000)
	if _, _, err := d.Put(ctx, bytes.NewReader(b), 1000); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.steps, " "); got != "free create allocate write chmod sync close rename syncDir" {
		t.Error(got)
	}
	f.steps = nil
	if _, _, err := d.Put(ctx, bytes.NewReader(b), 1000); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(f.steps, " "); got != "free create allocate write chmod sync close remove" {
		t.Errorf("the same again: %s", got)
	}
}

// A full disk is an error before the first byte.
func TestFullDisk(t *testing.T) {
	free := int64(0)
	fake := system
	fake.free = func(string) (int64, error) { return free, nil }
	d, err := open(Options{Path: t.TempDir(), Reserve: 1 << 20}, fake)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		free, size int64
		full       bool
	}{
		{0, 1, true},
		{1 << 20, 1, true},
		{1<<20 + 99_999, 100_000, true},
		{1<<20 + 100_000, 100_000, false},
		{2<<20 - 1, -1, true}, // the size is not known: a step's room is wanted
		{2 << 20, -1, false},
	} {
		free = c.free
		read := false
		src := io.MultiReader(readerFunc(func([]byte) (int, error) { read = true; return 0, io.EOF }), bytes.NewReader(blobtest.Content(uint64(c.free), int(max(c.size, 1)))))
		_, _, err := d.Put(ctx, src, c.size)
		var e *fleet.Error
		if c.full && (!errors.As(err, &e) || e.Code != fleet.CodeNoSpace || e.Hint == "" || read) || !c.full && err != nil {
			t.Errorf("%d free, %d wanted: %v, read %v", c.free, c.size, err, read)
		}
	}
	// It fills up while an image of unknown size comes in.
	before := len(everything(t, d))
	left := int64(8 << 20)
	fake.free = func(string) (int64, error) { left -= 2 << 20; return left, nil }
	d.ops = fake
	if _, _, err := d.Put(ctx, bytes.NewReader(blobtest.Content(9, 6<<20)), -1); fleet.CodeOf(err) != fleet.CodeNoSpace {
		t.Errorf("%v", err)
	}
	if got := everything(t, d); len(got) != before {
		t.Errorf("left behind: %v", got)
	}
}

// The disk's own word, at each step.
func TestFullDiskSaysTheSystem(t *testing.T) {
	for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT} {
		for _, at := range []string{"create", "allocate", "write", "sync", "close", "rename", "syncDir"} {
			f := &faulty{real: system, err: errno}
			d, err := open(Options{Path: t.TempDir(), Reserve: -1}, f.ops())
			if err != nil {
				t.Fatal(err)
			}
			f.fails = func(int) bool { return f.steps[len(f.steps)-1] == at }
			_, _, err = d.Put(ctx, strings.NewReader("some bytes"), -1)
			if fleet.CodeOf(err) != fleet.CodeNoSpace || len(everything(t, d)) != 0 {
				t.Errorf("%v at %s: %v, left %v", errno, at, err, everything(t, d))
			}
		}
	}
}

func TestFiles(t *testing.T) {
	d := openAt(t, t.TempDir())
	digest, _, err := d.Put(ctx, strings.NewReader("abc"), -1)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(d.path, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"))
	if err != nil || st.Mode().Perm() != 0o400 || st.Size() != 3 {
		t.Errorf("%v %v", st, err)
	}
	if st, _ := os.Stat(d.path); st.Mode().Perm() != 0o700 {
		t.Errorf("%v", st.Mode())
	}
	// Other files are nobody's blobs, and are left alone.
	for _, name := range []string{"README", strings.ToUpper(digest.String()), digest.String() + "0"} {
		if err := os.WriteFile(filepath.Join(d.path, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := d.List(ctx); err != nil || len(list) != 1 || list[0] != digest {
		t.Errorf("%v %v", list, err)
	}
	if f, err := d.OpenBlob(ctx, fleet.Digest{}); f != nil || fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Errorf("%v %v", f, err)
	}
	f, err := d.OpenBlob(ctx, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, ok := f.(*os.File); !ok {
		t.Error("no file: sendfile can't serve it")
	}
}

func TestVerifyFindsDamage(t *testing.T) {
	d := openAt(t, t.TempDir())
	digest, _, err := d.Put(ctx, bytes.NewReader(blobtest.Content(1, 5000)), -1)
	if err != nil {
		t.Fatal(err)
	}
	os.Chmod(d.name(digest), 0o600)
	f, err := os.OpenFile(d.name(digest), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	var b [1]byte
	f.ReadAt(b[:], 4321)
	b[0] ^= 0x10 // one bit
	f.WriteAt(b[:], 4321)
	f.Close()
	if err := d.Verify(ctx, digest); fleet.CodeOf(err) != fleet.CodeInternal || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("%v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func BenchmarkPut(b *testing.B) {
	d := openAt(b, b.TempDir())
	content := blobtest.Content(1, 1068032)
	b.SetBytes(int64(len(content)))
	for i := 0; b.Loop(); i++ {
		content[0], content[1], content[2] = byte(i), byte(i>>8), byte(i>>16)
		if _, _, err := d.Put(ctx, bytes.NewReader(content), int64(len(content))); err != nil {
			b.Fatal(err)
		}
	}
}

// The folder itself is made durable, whoever made it.
func TestFolderIsFlushed(t *testing.T) {
	top := t.TempDir()
	var synced []string
	spy := system
	spy.syncDir = func(path string) error {
		synced = append(synced, path)
		return system.syncDir(path)
	}
	for range 2 {
		if _, err := open(Options{Path: filepath.Join(top, "blobs")}, spy); err != nil {
			t.Fatal(err)
		}
	}
	if len(synced) != 2 || synced[0] != top || synced[1] != top {
		t.Errorf("flushed %v", synced)
	}
	spy.syncDir = func(string) error { return syscall.EIO }
	if _, err := open(Options{Path: filepath.Join(top, "blobs")}, spy); !errors.Is(err, syscall.EIO) {
		t.Errorf("a flush that fails: %v", err)
	}
}
