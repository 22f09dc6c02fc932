package cache

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/blob/bucket"
	"github.com/runnel-fota/runnel/internal/blob/s3test"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// opener opens caches, each in front of its own prefix; opened again, the one that
// was open before is closed, as by the end of its process.
func opener(s *s3test.Server) blobtest.Open {
	open := map[string]*Store{}
	n := new(atomic.Int64)
	prefix := map[string]string{}
	return func(t testing.TB, dir string) blob.Store {
		t.Helper()
		if old := open[dir]; old != nil {
			if err := old.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			prefix[dir] = fmt.Sprintf("p%d", n.Add(1))
		}
		b, err := bucket.Open(t.Context(), bucket.Options{URL: s.URL(prefix[dir])})
		if err != nil {
			t.Fatal(err)
		}
		c, err := Open(Options{Remote: b, Path: filepath.Join(dir, "cache")})
		if err != nil {
			t.Fatal(err)
		}
		open[dir] = c
		return c
	}
}

// The suites that the folder passes, on a bucket behind a cache.
func TestS3Store(t *testing.T) {
	s := s3test.Start(t)
	open := opener(s)
	t.Run("Store", func(t *testing.T) { blobtest.Run(t, open) })
	t.Run("Stager", func(t *testing.T) { blobtest.RunStager(t, open) })
}

// What is damaged in the bucket is found before it is served, is refused, and is
// replaced by who pushes it again; a whole copy mends it by itself.
func TestS3Damage(t *testing.T) {
	s := s3test.Start(t)
	ctx := context.Background()
	b, err := bucket.Open(ctx, bucket.Options{URL: s.URL("d")})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c, err := Open(Options{Remote: b, Path: dir})
	if err != nil {
		t.Fatal(err)
	}
	content := blobtest.Content(1, 300_000)
	d, _, err := c.Put(ctx, bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	spoil := func() {
		t.Helper()
		bad := bytes.Clone(content)
		bad[1000] ^= 1
		if err := os.WriteFile(s.File("d/"+d.String()), bad, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	spoil()
	if _, err := b.Check(ctx, d, nil); !isDamaged(err) {
		t.Fatalf("a bit turned in the bucket: %v", err)
	}
	if err := c.Verify(ctx, d); err != nil {
		t.Fatalf("the copy does not mend it: %v", err)
	}
	if _, err := b.Check(ctx, d, nil); err != nil {
		t.Fatalf("not mended: %v", err)
	}

	spoil()
	if err := c.drop(ctx, d); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Open(ctx, d); !isDamaged(err) {
		t.Fatalf("served, or: %v", err)
	}
	if n, used := c.Usage(); n != 0 || used != 0 {
		t.Errorf("%d copies, %d bytes are left of it", n, used)
	}
	if _, created, err := c.Put(ctx, bytes.NewReader(content), -1); err != nil || created {
		t.Errorf("pushed again: %v %v", created, err)
	}
	if _, err := b.Check(ctx, d, nil); err != nil {
		t.Errorf("pushed again, and still: %v", err)
	}
}

// Storage that is gone: clear errors, copies are still served, and all is as it
// was when it is back.
func TestS3Away(t *testing.T) {
	s := s3test.Start(t)
	ctx := context.Background()
	b, err := bucket.Open(ctx, bucket.Options{URL: s.URL("a"), Patience: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_900_000_000, 0)
	c, err := Open(Options{Remote: b, Path: t.TempDir(), Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	put := func(seed uint64) fleet.Digest {
		t.Helper()
		d, _, err := c.Put(ctx, bytes.NewReader(blobtest.Content(seed, 50_000)), 50_000)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	here, gone := put(1), put(2)
	if err := c.drop(ctx, gone); err != nil {
		t.Fatal(err)
	}
	s.Stop()
	f, err := c.Open(ctx, here)
	if err != nil {
		t.Fatalf("a copy is there: %v", err)
	}
	f.Close()
	if _, err := c.Open(ctx, gone); fleet.CodeOf(err) != fleet.CodeBusy || !strings.Contains(err.Error(), "s3://fleet/a can't be reached") {
		t.Errorf("%s: %v", fleet.CodeOf(err), err)
	}
	if _, _, err := c.Put(ctx, strings.NewReader("x"), 1); fleet.CodeOf(err) != fleet.CodeBusy {
		t.Errorf("put: %v", err)
	}
	if _, err := c.List(ctx); fleet.CodeOf(err) != fleet.CodeBusy {
		t.Errorf("list: %v", err)
	}
	s.Again()
	if _, err := c.Open(ctx, gone); fleet.CodeOf(err) != fleet.CodeBusy {
		t.Errorf("asked again at once: %v", err)
	}
	now = now.Add(awayFor)
	f, err = c.Open(ctx, gone)
	if err != nil {
		t.Fatalf("it is back: %v", err)
	}
	f.Close()
	if list, err := c.List(ctx); err != nil || len(list) != 2 {
		t.Errorf("%v %v", list, err)
	}
}
