// Package dir keeps blobs as files in a folder:
//
//	blobs/<64 hex digits>   a blob under its SHA-256, mode 0400
//	blobs/tmp/              what is being written
//
// One process at a time uses a folder (internal/datadir locks it). The names are
// flat: a server holds some thousand images at most, and each level more is a
// folder whose entry must be made durable too.
//
// A blob is written to tmp, flushed, renamed, and the folder is flushed: after a
// crash at any moment there is the whole blob or none, and tmp is emptied when
// the folder is opened.
package dir

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	// DefaultReserve is left free on the disk, in bytes. It is for the database beside the
	// blobs: its log may grow to 64 MiB between two foldings, and reports must still be
	// acknowledged when images have filled the disk. A share of the disk would be too little
	// on a small one and a waste on a large one.
	DefaultReserve = 64 << 20

	tmpName = "tmp"
	// stepBytes is the room that is made sure of at a time where the size is not known.
	stepBytes = 1 << 20
	copyBytes = 128 << 10
)

// Options of Open.
type Options struct {
	Path string
	// Reserve is what must stay free on the disk, in bytes; negative: nothing.
	// 0: DefaultReserve.
	Reserve int64
	// Shared: other servers write to the folder too. What one of them is writing is left alone:
	// only what was not touched for a day is taken for a crash's.
	Shared bool
}

// unfinishedAge is how old a file in tmp is before it is nobody's, where the folder is shared.
const unfinishedAge = 24 * time.Hour

// Dir is an open folder of blobs.
type Dir struct {
	path    string
	reserve int64
	ops     ops
	shared  bool
	space   sync.Mutex // from the look at the free space until the room is taken
	names   sync.Mutex // while a blob gets or loses its name
}

var _ blob.Store = (*Dir)(nil)

// Open opens the folder, makes it if need be, and removes what a crash left half-written.
func Open(o Options) (*Dir, error) { return open(o, system) }

func open(o Options, ops ops) (*Dir, error) {
	d := &Dir{path: o.Path, reserve: o.Reserve, ops: ops, shared: o.Shared}
	if d.reserve == 0 {
		d.reserve = DefaultReserve
	}
	d.reserve = max(d.reserve, 0)
	tmp := filepath.Join(d.path, tmpName)
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	// Else a power loss could take the folder with what was acknowledged in it. tmp may go:
	// nothing in it counts. Each time: the start that made the folder may not have got here.
	if err := d.ops.syncDir(filepath.Dir(d.path)); err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	left, err := os.ReadDir(tmp)
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	for _, e := range left {
		if o.Shared && !old(e) {
			continue
		}
		if err := d.ops.remove(filepath.Join(tmp, e.Name())); err != nil {
			return nil, fmt.Errorf("blobs: %w", err)
		}
	}
	return d, nil
}

// old says whether nobody writes to a file in tmp any more.
func old(e fs.DirEntry) bool {
	st, err := e.Info()
	return err == nil && time.Since(st.ModTime()) > unfinishedAge
}

func (d *Dir) name(digest fleet.Digest) string { return filepath.Join(d.path, digest.String()) }

// Put implements blob.Store.
func (d *Dir) Put(ctx context.Context, src io.Reader, size int64) (fleet.Digest, bool, error) {
	p := &put{d: d, sha: sha256.New()}
	if err := p.start(size); err != nil {
		return fleet.Digest{}, false, err
	}
	digest, created, err := p.run(ctx, src, size)
	if err != nil {
		p.abort()
		return fleet.Digest{}, false, err
	}
	return digest, created, nil
}

// put is one Put: a file in tmp that becomes a blob, or nothing.
type put struct {
	d         *Dir
	f         file // nil once closed
	path      string
	sha       hash.Hash
	written   int64
	allocated int64
}

// start makes the file and takes the room for it.
func (p *put) start(size int64) (err error) {
	room := size
	if size < 0 {
		room = stepBytes
	}
	d := p.d
	d.space.Lock()
	defer d.space.Unlock()
	if err := d.checkSpace(room); err != nil {
		return err
	}
	if p.f, p.path, err = d.ops.create(filepath.Join(d.path, tmpName)); err != nil {
		return diskError("make a file", err)
	}
	if err := p.allocate(room); err != nil {
		p.abort()
		return err
	}
	return nil
}

// checkSpace wants n bytes beside the reserve. It is called with space locked.
func (d *Dir) checkSpace(n int64) error {
	free, err := d.ops.free(d.path)
	if err != nil {
		return diskError("look at the free space", err)
	}
	if free-d.reserve < n {
		return &fleet.Error{Code: fleet.CodeNoSpace,
			Message: fmt.Sprintf("the disk is full: %d bytes are needed, %d are free, of which %d are kept in reserve", n, free, d.reserve),
			Hint:    "make room on the data folder's disk"}
	}
	return nil
}

// allocate takes room up to n bytes of the file.
func (p *put) allocate(n int64) error {
	if n <= p.allocated {
		return nil
	}
	if err := p.f.Allocate(n); err != nil {
		return diskError("take the room", err)
	}
	p.allocated = n
	return nil
}

func (p *put) run(ctx context.Context, src io.Reader, size int64) (fleet.Digest, bool, error) {
	var digest fleet.Digest
	if err := p.copy(ctx, src, size); err != nil {
		return digest, false, err
	}
	if size >= 0 && p.written != size {
		return digest, false, fleet.Errorf(fleet.CodeInvalid, "%d bytes were announced, %d came", size, p.written)
	}
	return p.finish(ctx)
}

// finish makes a blob of what was written.
func (p *put) finish(ctx context.Context) (digest fleet.Digest, created bool, err error) {
	p.sha.Sum(digest[:0])
	if p.allocated > p.written {
		if err := p.f.Truncate(p.written); err != nil {
			return digest, false, diskError("cut the file", err)
		}
	}
	if err := p.f.Chmod(0o400); err != nil {
		return digest, false, diskError("set the file's mode", err)
	}
	// Before the rename: a name must never stand for bytes that are not on the disk.
	if err := p.f.Sync(); err != nil {
		return digest, false, diskError("flush the file", err)
	}
	f := p.f
	p.f = nil
	if err := f.Close(); err != nil {
		return digest, false, diskError("close the file", err)
	}
	created, err = p.publish(ctx, digest)
	return digest, created, err
}

// copy writes src to the file and hashes it.
func (p *put) copy(ctx context.Context, src io.Reader, size int64) error {
	buf := make([]byte, copyBytes)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := src.Read(buf)
		if n > 0 {
			if size >= 0 && p.written+int64(n) > size {
				return fleet.Errorf(fleet.CodeInvalid, "more than the announced %d bytes came", size)
			}
			if err := p.write(buf[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err // the source's own
		}
	}
}

func (p *put) write(b []byte) error {
	end := p.written + int64(len(b))
	if end > p.allocated {
		p.d.space.Lock()
		err := p.d.checkSpace(end + stepBytes - p.allocated)
		if err == nil {
			err = p.allocate(end + stepBytes)
		}
		p.d.space.Unlock()
		if err != nil {
			return err
		}
	}
	if _, err := p.f.Write(b); err != nil {
		return diskError("write", err)
	}
	p.sha.Write(b)
	p.written = end
	return nil
}

// publish gives the file its name.
func (p *put) publish(ctx context.Context, digest fleet.Digest) (created bool, err error) {
	d := p.d
	d.names.Lock()
	defer d.names.Unlock()
	name := d.name(digest)
	known := true
	switch err := d.Verify(ctx, digest); fleet.CodeOf(err) {
	case "":
		// It is there and whole. Should the removal fail, the next start empties tmp.
		_ = d.ops.remove(p.path)
		return false, nil
	case fleet.CodeNotFound:
		known = false
	default:
		if ctx.Err() != nil {
			return false, err
		}
		// Damaged: replaced. That it was there means that somebody may refer to it.
	}
	if err := d.ops.rename(p.path, name); err != nil {
		return false, diskError("name the file", err)
	}
	p.path = ""
	if err := d.ops.syncDir(d.path); err != nil {
		// Nobody was told of it: without a flush its name may be gone after a power loss.
		if !known {
			_ = d.ops.remove(name)
		}
		return false, diskError("flush the folder", err)
	}
	return !known, nil
}

// abort leaves nothing behind. What can't be removed now is removed at the next start.
func (p *put) abort() {
	if p.f != nil {
		p.f.Close()
		p.f = nil
	}
	if p.path != "" {
		_ = p.d.ops.remove(p.path)
	}
}

// Open implements blob.Store.
func (d *Dir) Open(ctx context.Context, digest fleet.Digest) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(d.name(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fleet.Errorf(fleet.CodeNotFound, "no image has the SHA-256 %s", digest)
	}
	if err != nil {
		return nil, diskError("open", err)
	}
	return f, nil
}

// OpenBlob is Open for who only reads from the beginning.
func (d *Dir) OpenBlob(ctx context.Context, digest fleet.Digest) (io.ReadCloser, error) {
	f, err := d.Open(ctx, digest)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

// Verify implements blob.Store.
func (d *Dir) Verify(ctx context.Context, digest fleet.Digest) error {
	_, err := d.Check(ctx, digest, nil)
	return err
}

// List implements blob.Store. Files with other names are somebody else's.
func (d *Dir) List(ctx context.Context) ([]fleet.Digest, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(d.path) // sorted by name
	if err != nil {
		return nil, diskError("list", err)
	}
	list := []fleet.Digest{}
	for _, e := range entries {
		digest, err := fleet.ParseDigest(e.Name())
		if err == nil && digest.String() == e.Name() && e.Type().IsRegular() {
			list = append(list, digest)
		}
	}
	return list, nil
}

// Delete implements blob.Store.
func (d *Dir) Delete(ctx context.Context, digest fleet.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.names.Lock()
	defer d.names.Unlock()
	err := d.ops.remove(d.name(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return fleet.Errorf(fleet.CodeNotFound, "no image has the SHA-256 %s", digest)
	}
	if err == nil {
		err = d.ops.syncDir(d.path)
	}
	return diskError("delete", err)
}

// diskError makes a domain error of the system's.
func diskError(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &fleet.Error{Code: fleet.CodeInternal, Message: "the image store failed", Op: "blobs: " + op, Err: err}
	if isFull(err) {
		e.Code, e.Message, e.Hint = fleet.CodeNoSpace, "the disk is full", "make room on the data folder's disk"
	}
	return e
}
