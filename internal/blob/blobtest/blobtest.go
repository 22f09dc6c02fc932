// Package blobtest is what every blob.Store must do, as one suite: a store's own
// test calls Run.
package blobtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// Open opens the store in a folder; called again with the same one, it opens the
// same store.
type Open func(t testing.TB, dir string) blob.Store

var ctx = context.Background()

// Run runs the suite.
func Run(t *testing.T, open Open) {
	for name, f := range map[string]func(*testing.T, blob.Store, func() blob.Store){
		"RoundTrip":     roundTrip,
		"WrongSize":     wrongSize,
		"FailingSource": failingSource,
		"Same":          same,
		"Delete":        deleted,
		"Concurrent":    concurrent,
		"Cancelled":     cancelled,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f(t, open(t, dir), func() blob.Store { return open(t, dir) })
		})
	}
}

// Content is n bytes that differ from seed to seed.
func Content(seed uint64, n int) []byte {
	b := make([]byte, n)
	rnd := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	rnd.Read(b)
	return b
}

func code(t *testing.T, err error, want fleet.Code) {
	t.Helper()
	if fleet.CodeOf(err) != want {
		t.Errorf("%v (%s), not %s", err, fleet.CodeOf(err), want)
	}
}

// empty wants nothing in the store.
func empty(t *testing.T, s blob.Store) {
	t.Helper()
	if list, err := s.List(ctx); err != nil || list == nil || len(list) != 0 {
		t.Errorf("left behind: %v %v", list, err)
	}
}

func read(t *testing.T, s blob.Store, d fleet.Digest) []byte {
	t.Helper()
	f, err := s.Open(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func roundTrip(t *testing.T, s blob.Store, again func() blob.Store) {
	want := map[fleet.Digest][]byte{}
	for i, n := range []int{0, 1, 63, 4095, 4096, 131072, 131073, 1068032, 3 << 20} {
		for k, size := range []int64{int64(n), -1} {
			b := Content(uint64(2*i+k), n)
			slow := iotest.HalfReader
			if n < 64 {
				slow = iotest.OneByteReader
			}
			d, created, err := s.Put(ctx, slow(bytes.NewReader(b)), size)
			_, known := want[d]
			if err != nil || d != sha256.Sum256(b) || created == known {
				t.Fatalf("%d bytes: %v %v %v", n, d, created, err)
			}
			want[d] = b
		}
	}
	for range 2 {
		list, err := s.List(ctx)
		if err != nil || len(list) != len(want) {
			t.Fatalf("%d of %d: %v", len(list), len(want), err)
		}
		for i, d := range list {
			if i > 0 && bytes.Compare(list[i-1][:], d[:]) >= 0 {
				t.Error("not in order")
			}
			if got := read(t, s, d); !bytes.Equal(got, want[d]) {
				t.Errorf("%v: %d bytes, not %d", d, len(got), len(want[d]))
			}
			if err := s.Verify(ctx, d); err != nil {
				t.Error(err)
			}
		}
		s = again()
	}
	_, err := s.Open(ctx, fleet.Digest{1})
	code(t, err, fleet.CodeNotFound)
	code(t, s.Verify(ctx, fleet.Digest{1}), fleet.CodeNotFound)
}

func wrongSize(t *testing.T, s blob.Store, _ func() blob.Store) {
	b := Content(1, 100_000)
	for _, size := range []int64{0, 1, 99_999, 100_001, 3 << 20} {
		_, created, err := s.Put(ctx, bytes.NewReader(b), size)
		if created {
			t.Error("created")
		}
		code(t, err, fleet.CodeInvalid)
	}
	empty(t, s)
}

func failingSource(t *testing.T, s blob.Store, _ func() blob.Store) {
	own := errors.New("the image is bad")
	for _, n := range []int{0, 1, 200_000} {
		for _, size := range []int64{-1, int64(n), int64(n) + 1} {
			_, _, err := s.Put(ctx, io.MultiReader(bytes.NewReader(Content(2, n)), iotest.ErrReader(own)), size)
			if !errors.Is(err, own) {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
	}
	empty(t, s)
}

func same(t *testing.T, s blob.Store, again func() blob.Store) {
	b := Content(3, 50_000)
	for i := range 3 {
		_, created, err := s.Put(ctx, bytes.NewReader(b), int64(len(b)))
		if err != nil || created != (i == 0) {
			t.Errorf("time %d: %v %v", i, created, err)
		}
		if i == 1 {
			s = again()
		}
	}
	if list, _ := s.List(ctx); len(list) != 1 {
		t.Errorf("%v", list)
	}
}

func deleted(t *testing.T, s blob.Store, again func() blob.Store) {
	b := Content(4, 50_000)
	d, _, err := s.Put(ctx, bytes.NewReader(b), -1)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(ctx, d)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := s.Delete(ctx, d); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, b) {
		t.Errorf("who reads it reads on: %d bytes, %v", len(got), err)
	}
	s = again()
	empty(t, s)
	code(t, s.Delete(ctx, d), fleet.CodeNotFound)
	if _, created, err := s.Put(ctx, bytes.NewReader(b), -1); !created || err != nil {
		t.Errorf("again: %v %v", created, err)
	}
}

func concurrent(t *testing.T, s blob.Store, _ func() blob.Store) {
	var wg sync.WaitGroup
	created := make(chan bool, 24)
	for i := range 24 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			b := Content(uint64(10+i%3), 300_000)
			size := int64(len(b))
			if i%2 == 1 {
				size = -1
			}
			d, made, err := s.Put(ctx, bytes.NewReader(b), size)
			if err != nil || d != sha256.Sum256(b) {
				t.Errorf("%v", err)
			}
			created <- made
		}()
	}
	wg.Wait()
	close(created)
	n := 0
	for made := range created {
		if made {
			n++
		}
	}
	if list, _ := s.List(ctx); n != 3 || len(list) != 3 {
		t.Errorf("created %d times, %d there", n, len(list))
	}
}

func cancelled(t *testing.T, s blob.Store, _ func() blob.Store) {
	ended, cancel := context.WithCancel(ctx)
	b := Content(5, 500_000)
	// It ends while the image comes in.
	_, _, err := s.Put(ended, io.MultiReader(bytes.NewReader(b[:200_000]), readerFunc(func([]byte) (int, error) { cancel(); return 0, nil }), bytes.NewReader(b[200_000:])), -1)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	_, err = s.Open(ended, fleet.Digest{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := s.List(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, _, err := s.Put(ended, strings.NewReader("x"), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	empty(t, s)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }
