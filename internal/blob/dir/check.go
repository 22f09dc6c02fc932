package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// OpenAsIs opens a folder to look at and changes nothing in it: Rest says what
// Open would remove. CodeNotFound where there is none.
func OpenAsIs(o Options) (*Dir, error) {
	st, err := os.Stat(o.Path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
		return nil, fleet.Errorf(fleet.CodeNotFound, "there is no folder %s", o.Path)
	}
	if err != nil {
		return nil, diskError("open", err)
	}
	return &Dir{path: o.Path, reserve: -1, ops: system, shared: o.Shared}, nil
}

// Fresh: the blob got its name less than age before now. Where the folder is shared
// another server may be about to publish it.
func (d *Dir) Fresh(digest fleet.Digest, age time.Duration, now time.Time) (bool, error) {
	st, err := os.Stat(d.name(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, diskError("look", err)
	}
	return now.Sub(st.ModTime()) < age, nil
}

// Rest is what lies in the folder beside blobs, by name: what was being written
// when a crash came, and what is none of ours.
func (d *Dir) Rest() (unfinished, strangers []string, err error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, nil, diskError("list", err)
	}
	for _, e := range entries {
		digest, err := fleet.ParseDigest(e.Name())
		switch {
		case err == nil && digest.String() == e.Name() && e.Type().IsRegular():
		case e.Name() == tmpName && e.IsDir():
			in, err := os.ReadDir(filepath.Join(d.path, tmpName))
			if err != nil {
				return nil, nil, diskError("list", err)
			}
			for _, u := range in {
				if d.shared && !old(u) {
					continue // another server may be writing it
				}
				unfinished = append(unfinished, filepath.Join(tmpName, u.Name()))
			}
		default:
			strangers = append(strangers, e.Name())
		}
	}
	return unfinished, strangers, nil
}

// RemoveUnfinished removes what Rest calls so. Nobody may be writing.
func (d *Dir) RemoveUnfinished() error {
	unfinished, _, err := d.Rest()
	if err != nil {
		return err
	}
	for _, name := range unfinished {
		if err := d.ops.remove(filepath.Join(d.path, name)); err != nil {
			return diskError("delete", err)
		}
	}
	return nil
}

// Check is Verify for who also wants to know how long the blob is, or to be told
// of each piece that was read: an error of each ends it.
func (d *Dir) Check(ctx context.Context, digest fleet.Digest, each func(bytes int) error) (size int64, err error) {
	f, err := d.Open(ctx, digest)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sha := sha256.New()
	buf := make([]byte, copyBytes)
	for {
		if err := ctx.Err(); err != nil {
			return size, err
		}
		n, err := f.Read(buf)
		sha.Write(buf[:n])
		size += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return size, diskError("read", err)
		}
		if each != nil {
			if err := each(n); err != nil {
				return size, err
			}
		}
	}
	if have := fleet.Digest(sha.Sum(nil)); have != digest {
		return size, &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("the image %s is damaged on the disk", digest), Hint: "push it again: it is replaced",
			Err: fmt.Errorf("%w: their SHA-256 is %s", blob.ErrDamaged, have)}
	}
	return size, nil
}
