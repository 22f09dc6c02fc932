package dir

import (
	"bytes"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// quota is a disk that takes so many bytes, and says before that there is room:
// other programs fill it meanwhile.
type quota struct{ left int64 }

func (q *quota) ops() ops {
	o := system
	o.create = func(dir string) (file, string, error) {
		f, path, err := system.create(dir)
		return &quotaFile{f, q}, path, err
	}
	o.free = func(string) (int64, error) { return 1 << 40, nil }
	return o
}

type quotaFile struct {
	file
	q *quota
}

// Allocate: a file system that can't.
func (f *quotaFile) Allocate(int64) error { return nil }

func (f *quotaFile) Write(b []byte) (int, error) {
	n := int(min(int64(len(b)), f.q.left))
	f.q.left -= int64(n)
	m, err := f.file.Write(b[:n])
	if err == nil && m < len(b) {
		err = syscall.ENOSPC
	}
	return m, err
}

// The disk fills up at any byte of an image: that is an error with its own code,
// nothing is left of the image, those that were there are whole and can be read,
// and the same image goes in when there is room.
func TestFullAtAnyByte(t *testing.T) {
	content := blobtest.Content(7, 300_000)
	q := &quota{left: 1 << 40}
	d, err := open(Options{Path: filepath.Join(t.TempDir(), "blobs"), Reserve: -1}, q.ops())
	if err != nil {
		t.Fatal(err)
	}
	kept, _, err := d.Put(ctx, bytes.NewReader(blobtest.Content(1, 100_000)), -1)
	if err != nil {
		t.Fatal(err)
	}
	put := func(staged bool) error {
		if staged {
			_, err := stagePut(d, content)
			return err
		}
		_, _, err := d.Put(ctx, bytes.NewReader(content), int64(len(content)))
		return err
	}
	for room := int64(0); room < int64(len(content)); room += 17_011 { // a prime: anywhere within pages and pieces
		for _, staged := range []bool{false, true} {
			q.left = room
			if err := put(staged); fleet.CodeOf(err) != fleet.CodeNoSpace {
				t.Fatalf("room for %d bytes: %v", room, err)
			}
			if left := everything(t, d); len(left) != 1 {
				t.Fatalf("room for %d bytes: left %v", room, left)
			}
			if err := d.Verify(ctx, kept); err != nil {
				t.Fatalf("room for %d bytes: %v", room, err)
			}
		}
	}
	q.left = int64(len(content))
	if err := put(false); err != nil || len(everything(t, d)) != 2 {
		t.Errorf("there is room again: %v", err)
	}
}
