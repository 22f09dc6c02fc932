package dir

import (
	"bytes"
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/fleet"
)

func TestStager(t *testing.T) {
	blobtest.RunStager(t, func(t testing.TB, dir string) blob.Store { return openAt(t, dir) })
}

// stagePut is a Put by way of Stage.
func stagePut(d *Dir, content []byte) (created bool, err error) {
	s, err := d.Stage(ctx, int64(len(content)))
	if err != nil {
		return false, err
	}
	defer s.Abort()
	for rest := content; len(rest) > 0; {
		n, err := s.Write(rest[:min(len(rest), 100_000)])
		if err != nil {
			return false, err
		}
		rest = rest[n:]
	}
	_, created, err = s.Commit(ctx)
	return created, err
}

// Whatever step fails, nothing is left behind; a write that failed is the last.
func TestEveryStageStepFails(t *testing.T) {
	content := blobtest.Content(7, 300_000)
	for k := 0; ; k++ {
		f := &faulty{real: system, err: syscall.EIO, short: k%2 == 0}
		d, err := open(Options{Path: filepath.Join(t.TempDir(), "blobs"), Reserve: -1}, f.ops())
		if err != nil {
			t.Fatal(err)
		}
		start := f.n
		f.fails = func(i int) bool { return i-start == k }
		created, err := stagePut(d, content)
		f.fails = nil
		left := everything(t, d)
		if f.failed == "" {
			if err != nil || !created || len(left) != 1 || k < 8 {
				t.Errorf("no step of %d failed: %v %v %v", k, created, err, left)
			}
			return
		}
		if err == nil || created || fleet.CodeOf(err) != fleet.CodeInternal || !errors.Is(err, syscall.EIO) || len(left) != 0 {
			t.Errorf("step %d, %s: %v %v, left %v", k, f.failed, created, err, left)
		}
	}
}

// Both ways in take the same steps in the same order.
func TestStageSteps(t *testing.T) {
	b := blobtest.Content(1, 1000)
	steps := func(put func(d *Dir) error) []string {
		f := &faulty{real: system}
		d, err := open(Options{Path: t.TempDir(), Reserve: -1}, f.ops())
		if err != nil {
			t.Fatal(err)
		}
		f.steps = nil
		if err := put(d); err != nil {
			t.Fatal(err)
		}
		return f.steps
	}
	one := steps(func(d *Dir) error { _, err := stagePut(d, b); return err })
	two := steps(func(d *Dir) error { _, _, err := d.Put(ctx, bytes.NewReader(b), 1000); return err })
	if len(one) < 8 || len(one) != len(two) {
		t.Fatalf("%v\n%v", one, two)
	}
	for i := range one {
		if one[i] != two[i] {
			t.Errorf("%v\n%v", one, two)
			break
		}
	}
}

// A full disk is an error before the first byte.
func TestStageFullDisk(t *testing.T) {
	full := system
	full.free = func(string) (int64, error) { return 2 << 20, nil }
	d, err := open(Options{Path: t.TempDir(), Reserve: 1 << 20}, full)
	if err != nil {
		t.Fatal(err)
	}
	for room, want := range map[int64]fleet.Code{0: "", 1 << 20: "", 1<<20 + 1: fleet.CodeNoSpace} {
		s, err := d.Stage(ctx, room)
		if fleet.CodeOf(err) != want {
			t.Errorf("%d: %v", room, err)
		}
		if err == nil {
			s.Abort()
		}
	}
	if left := everything(t, d); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}
