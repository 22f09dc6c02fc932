package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"testing"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// RunStager runs the suite of blob.Stager; the stores that open opens are ones.
func RunStager(t *testing.T, open Open) {
	for name, f := range map[string]func(*testing.T, blob.Store, blob.Stager, func() blob.Store){
		"Commit":    stageCommit,
		"Abort":     stageAbort,
		"Crash":     stageCrash,
		"Same":      stageSame,
		"Cancelled": stageCancelled,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir)
			f(t, s, s.(blob.Stager), func() blob.Store { return open(t, dir) })
		})
	}
}

// place stages b in pieces.
func place(t *testing.T, s blob.Stager, room int64, b []byte) blob.Staged {
	t.Helper()
	st, err := s.Stage(ctx, room)
	if err != nil {
		t.Fatal(err)
	}
	for rest := b; len(rest) > 0; {
		n, err := st.Write(rest[:min(len(rest), 70_001)])
		if err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	return st
}

func stageCommit(t *testing.T, s blob.Store, st blob.Stager, again func() blob.Store) {
	want := map[fleet.Digest][]byte{}
	for i, n := range []int{0, 1, 4096, 131073, 1068032, 3 << 20} {
		for k, room := range []int64{0, int64(n), int64(n) / 2, int64(n) + 2<<20} {
			b := Content(uint64(4*i+k), n)
			staged := place(t, st, room, b)
			if list, _ := s.List(ctx); len(list) != len(want) {
				t.Error("it is listed before its commit")
			}
			if _, err := s.Open(ctx, sha256.Sum256(b)); fleet.CodeOf(err) != fleet.CodeNotFound && n > 0 {
				t.Errorf("it opens before its commit: %v", err)
			}
			// It reads back anywhere, and ends where it ends: the room beyond is none of it.
			for _, off := range []int{0, n / 3, max(n-1, 0), n, n + 1} {
				p := make([]byte, 5000)
				got, err := staged.ReadAt(p, int64(off))
				tail := b[min(off, n):]
				if got != min(len(p), len(tail)) || !bytes.Equal(p[:got], tail[:got]) || (err == nil) != (got == len(p)) || err != nil && !errors.Is(err, io.EOF) {
					t.Errorf("%d bytes, room %d: read %d at %d: %v", n, room, got, off, err)
				}
			}
			d, created, err := staged.Commit(ctx)
			_, known := want[d]
			if err != nil || d != sha256.Sum256(b) || created == known {
				t.Fatalf("%d bytes: %v %v %v", n, d, created, err)
			}
			staged.Abort() // a deferred one
			if _, err := staged.Write(b); err == nil {
				t.Error("it is written behind its commit")
			}
			if _, _, err := staged.Commit(ctx); err == nil {
				t.Error("committed twice")
			}
			want[d] = b
		}
	}
	for range 2 {
		if list, err := s.List(ctx); err != nil || len(list) != len(want) {
			t.Fatalf("%d of %d: %v", len(list), len(want), err)
		}
		for d, b := range want {
			if err := s.Verify(ctx, d); err != nil || !bytes.Equal(read(t, s, d), b) {
				t.Errorf("%v: %v", d, err)
			}
		}
		s = again()
	}
}

func stageAbort(t *testing.T, s blob.Store, st blob.Stager, _ func() blob.Store) {
	for _, n := range []int{0, 100_000} {
		staged := place(t, st, 0, Content(1, n))
		staged.Abort()
		staged.Abort()
		if _, _, err := staged.Commit(ctx); err == nil {
			t.Error("committed after an abort")
		}
	}
	empty(t, s)
}

func stageCrash(t *testing.T, _ blob.Store, st blob.Stager, again func() blob.Store) {
	place(t, st, 0, Content(1, 100_000)) // and then nothing more
	empty(t, again())
}

func stageSame(t *testing.T, s blob.Store, st blob.Stager, _ func() blob.Store) {
	b := Content(3, 50_000)
	x, y := place(t, st, 0, b), place(t, st, 0, b)
	for i, staged := range []blob.Staged{x, y} {
		if d, created, err := staged.Commit(ctx); err != nil || created != (i == 0) || d != sha256.Sum256(b) {
			t.Errorf("time %d: %v %v", i, created, err)
		}
	}
	if list, _ := s.List(ctx); len(list) != 1 {
		t.Errorf("%v", list)
	}
}

func stageCancelled(t *testing.T, s blob.Store, st blob.Stager, _ func() blob.Store) {
	ended, cancel := context.WithCancel(ctx)
	staged := place(t, st, 0, Content(5, 1000))
	cancel()
	if _, _, err := staged.Commit(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := st.Stage(ended, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	empty(t, s)
}
