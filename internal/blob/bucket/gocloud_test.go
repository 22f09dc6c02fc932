//go:build gocloudtest

package bucket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"testing"
	"testing/iotest"
	"time"

	"gocloud.dev/blob/memblob"

	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// The adapter of gs:// and azblob://, on a bucket in memory. Google's and Azure's were not tried.
func TestS3Gocloud(t *testing.T) {
	ctx := context.Background()
	b := &Bucket{name: "mem://x", prefix: "p/", objects: gocloud{memblob.OpenBucket(nil)}, patience: time.Minute}
	if err := b.Claim(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	if err := b.Claim(ctx, "b"); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Errorf("%v", err)
	}
	content := blobtest.Content(1, 100_000)
	d := fleet.Digest(sha256.Sum256(content))
	broken := struct {
		io.Reader
		io.Seeker
	}{iotest.TimeoutReader(iotest.HalfReader(bytes.NewReader(content))), nil}
	if err := b.objects.put(ctx, b.key(d), broken, 100_000); err == nil {
		t.Error("half of it is taken")
	}
	if list, err := b.List(ctx); err != nil || len(list) != 0 {
		t.Errorf("%v %v", list, err)
	}
	for i := range 2 {
		if created, err := b.Upload(ctx, d, bytes.NewReader(content), 100_000); err != nil || created != (i == 0) {
			t.Errorf("%d: %v %v", i, created, err)
		}
	}
	if n, err := b.Check(ctx, d, nil); err != nil || n != 100_000 {
		t.Errorf("%d %v", n, err)
	}
	if fresh, err := b.Fresh(ctx, d, time.Hour, time.Now()); err != nil || !fresh {
		t.Errorf("%v %v", fresh, err)
	}
	if list, strangers, err := b.Look(ctx); err != nil || len(list) != 1 || len(strangers) != 0 {
		t.Errorf("%v %v %v", list, strangers, err)
	}
	for _, want := range []fleet.Code{"", fleet.CodeNotFound} {
		if err := b.Delete(ctx, d); fleet.CodeOf(err) != want {
			t.Errorf("%v", err)
		}
	}
	if _, _, err := b.Fetch(ctx, d); fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Errorf("%v", err)
	}
}
