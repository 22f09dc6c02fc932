// Package blob is the contract of a store of images: bytes under their SHA-256.
// It knows nothing of what they mean nor of who refers to them; internal/ingest
// does. blob/dir is a folder, the default; blob/bucket an object storage, with
// blob/cache in front of it; blobtest is the suite for all.
package blob

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// ErrDamaged is under the error of a blob whose bytes do not have its digest.
var ErrDamaged = errors.New("the bytes are not those that were stored")

// Store keeps immutable bytes by their SHA-256. Its methods may be called
// concurrently, also for the same blob.
type Store interface {
	// Put takes src to its end, and all or nothing: where it returns an error there is nothing
	// new in the store. An error of src is returned as it is and is not tried again. size is in
	// bytes, -1 where it is not known; another length than announced is CodeInvalid. The room
	// is made sure of before the first byte (CodeNoSpace). What is there already whole stays as
	// it is and answers created=false; what is there damaged is replaced. When Put returns nil
	// the blob outlives a power loss.
	Put(ctx context.Context, src io.Reader, size int64) (d fleet.Digest, created bool, err error)
	// Open opens a blob for reading; the caller closes it. CodeNotFound where there is none. A
	// blob that is deleted meanwhile can be read to its end. The content is not checked: Verify does.
	Open(ctx context.Context, d fleet.Digest) (*os.File, error)
	// Verify reads a blob and compares its digest: ErrDamaged where it has another.
	Verify(ctx context.Context, d fleet.Digest) error
	// List is all blobs, in the order of their digests.
	List(ctx context.Context) ([]fleet.Digest, error)
	// Delete forgets a blob; CodeNotFound where there is none. That nobody refers to it any
	// more is the caller's business.
	Delete(ctx context.Context, d fleet.Digest) error
}

// Stager is the power to take bytes whose fate is decided once all of them are
// there and were read again.
type Stager interface {
	// Stage makes sure of the room for so many bytes (CodeNoSpace) and answers a place for them;
	// more may be written while there is more room, fewer are as good. 0: not known.
	Stage(ctx context.Context, room int64) (Staged, error)
}

// Staged is a blob before it has a name. One goroutine uses it. Until Commit it
// is in no list, and a crash leaves nothing of it. It ends with Commit or Abort.
type Staged interface {
	io.Writer
	// ReadAt reads what was written.
	io.ReaderAt
	// Commit gives it its name: all that Put says of a blob is then true of it. Where it returns
	// an error, there is nothing new in the store.
	Commit(ctx context.Context) (d fleet.Digest, created bool, err error)
	// Abort forgets it; after Commit it does nothing.
	Abort()
}
