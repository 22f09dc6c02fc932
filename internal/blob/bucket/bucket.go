// Package bucket keeps blobs as objects in a bucket of somebody's object storage:
//
//	PREFIX/<64 hex digits>   a blob under its SHA-256
//	PREFIX/runnel-owner      whose bucket it is: see Claim
//
// Several servers may use a bucket at once. An object appears whole or not at all:
// each is one request, never several parts. The package keeps nothing on the disk
// and opens no file: internal/blob/cache makes a blob.Store of it. It knows
// nothing of what the blobs mean.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	ownerName = "runnel-owner"
	maxOwner  = 256 // bytes that are read of it

	// DefaultPatience is shorter than the 30 s that devices wait for an answer.
	DefaultPatience = 20 * time.Second
	// slowest is how slowly a blob may go up, in bytes/s, before it is given up.
	slowest = 64 << 10

	copyBytes = 128 << 10
)

// Bucket is an open bucket. Its methods may be called concurrently. Where the
// storage does not answer, or refuses, they answer CodeBusy with the reason: what
// it holds is not lost by that.
type Bucket struct {
	name     string // for people, without a query
	prefix   string // "", or it ends in a slash
	objects  objects
	patience time.Duration
}

// objects is one bucket at a provider, by key. An error that means "there is none"
// is fs.ErrNotExist; any other may be a *refusal.
type objects interface {
	get(ctx context.Context, key string) (body io.ReadCloser, size int64, err error)
	// put takes size bytes of src, all or none of them.
	put(ctx context.Context, key string, src io.ReadSeeker, size int64) error
	stat(ctx context.Context, key string) (size int64, modified time.Time, err error)
	// keys are those that begin with prefix and have no slash behind it, and where there is one
	// all up to it.
	keys(ctx context.Context, prefix string) iter.Seq2[string, error]
	remove(ctx context.Context, key string) error
	// sign makes a URL with which anybody may GET the object for a while. It asks nobody.
	sign(ctx context.Context, key string, valid time.Duration) (string, error)
}

// refusal is an answer that a person must do something about.
type refusal struct {
	error
	hint string
}

func (r *refusal) Unwrap() error { return r.error }

// String is the bucket's name and prefix.
func (b *Bucket) String() string { return b.name }

func (b *Bucket) key(d fleet.Digest) string { return b.prefix + d.String() }

// fail makes a domain error of the provider's.
func (b *Bucket) fail(ctx context.Context, op string, err error) error {
	var f *fleet.Error
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err() // who asked went away
	case errors.As(err, &f):
		return err
	}
	e := &fleet.Error{Code: fleet.CodeBusy, Message: "the bucket " + b.name + " can't be reached", Err: fmt.Errorf("%s: %w", op, err),
		Hint: "look whether its endpoint answers; what is stored is not lost"}
	var r *refusal
	switch {
	case errors.As(err, &r):
		e.Message, e.Hint = "the bucket "+b.name+" refuses", r.hint
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		e.Message, e.Err = "the bucket "+b.name+" is too slow", fmt.Errorf("%s: no answer within %s", op, b.patience)
	}
	return e
}

func notFound(d fleet.Digest) error {
	return fleet.Errorf(fleet.CodeNotFound, "no image has the SHA-256 %s", d)
}

// brief is a context for a short call.
func (b *Bucket) brief(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, b.patience)
}

// Fetch opens a blob for reading, from its beginning; CodeNotFound where there is
// none. What comes is not proven: blob.Prove does. A pause of more than the
// bucket's patience ends it with CodeBusy.
func (b *Bucket) Fetch(ctx context.Context, d fleet.Digest) (body io.ReadCloser, size int64, err error) {
	r := &patient{b: b, parent: ctx}
	r.ctx, r.cancel = context.WithCancel(ctx)
	r.idle = time.AfterFunc(b.patience, r.cancel)
	r.body, size, err = b.objects.get(r.ctx, b.key(d))
	r.idle.Stop()
	if err != nil {
		r.cancel()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, 0, notFound(d)
		}
		return nil, 0, b.fail(ctx, "fetch", err)
	}
	return r, size, nil
}

// patient is a body that must not stop for long.
type patient struct {
	b           *Bucket
	parent, ctx context.Context
	cancel      context.CancelFunc
	idle        *time.Timer // cancels ctx
	body        io.ReadCloser
}

func (r *patient) Read(p []byte) (int, error) {
	r.idle.Reset(r.b.patience)
	n, err := r.body.Read(p)
	r.idle.Stop()
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.b.fail(r.parent, "fetch", err)
	}
	return n, err
}

func (r *patient) Close() error {
	r.cancel() // first: what was not read is not waited for
	return r.body.Close()
}

// Upload stores size bytes of src under d, which must be their digest. It writes
// also where there is one already: what was damaged is mended by that, and its age
// begins anew (see Fresh). created: there was none. When it returns nil the
// storage has acknowledged it.
func (b *Bucket) Upload(ctx context.Context, d fleet.Digest, src io.ReadSeeker, size int64) (created bool, err error) {
	_, err = b.modified(ctx, d)
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		return false, err
	}
	created = err != nil
	long, cancel := context.WithTimeout(ctx, b.patience+time.Duration(size/slowest)*time.Second)
	defer cancel()
	return created, b.fail(ctx, "upload", b.objects.put(long, b.key(d), src, size))
}

// modified is when the blob was last written; CodeNotFound where there is none.
func (b *Bucket) modified(ctx context.Context, d fleet.Digest) (time.Time, error) {
	short, cancel := b.brief(ctx)
	defer cancel()
	_, at, err := b.objects.stat(short, b.key(d))
	if errors.Is(err, fs.ErrNotExist) {
		return at, notFound(d)
	}
	return at, b.fail(ctx, "look", err)
}

// Fresh: the blob was written less than age ago, by the storage's clock and ours.
// Another server that uses the bucket may be about to publish it.
func (b *Bucket) Fresh(ctx context.Context, d fleet.Digest, age time.Duration, now time.Time) (bool, error) {
	at, err := b.modified(ctx, d)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return false, nil
	}
	return err == nil && now.Sub(at) < age, err
}

// List is all blobs, in the order of their digests.
func (b *Bucket) List(ctx context.Context) ([]fleet.Digest, error) {
	list, _, err := b.Look(ctx)
	return list, err
}

// Look is List, and the names of what is there beside blobs and is none of ours.
func (b *Bucket) Look(ctx context.Context) (blobs []fleet.Digest, strangers []string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	long, cancel := context.WithCancel(ctx)
	defer cancel()
	idle := time.AfterFunc(b.patience, cancel) // a list comes in pages: each may take that long
	defer idle.Stop()
	blobs = []fleet.Digest{}
	for key, err := range b.objects.keys(long, b.prefix) {
		if err != nil {
			return nil, nil, b.fail(ctx, "list", err)
		}
		idle.Reset(b.patience)
		name := strings.TrimPrefix(key, b.prefix)
		switch d, err := fleet.ParseDigest(name); {
		case err == nil && d.String() == name:
			blobs = append(blobs, d)
		case name == "" || name == ownerName:
		default:
			strangers = append(strangers, name)
		}
	}
	// Providers list in this order; some that call themselves compatible do not.
	slices.SortFunc(blobs, func(x, y fleet.Digest) int { return slices.Compare(x[:], y[:]) })
	return blobs, strangers, nil
}

// Delete forgets a blob; CodeNotFound where there is none.
func (b *Bucket) Delete(ctx context.Context, d fleet.Digest) error {
	if _, err := b.modified(ctx, d); err != nil { // to remove what is not there is no error to a provider
		return err
	}
	short, cancel := b.brief(ctx)
	defer cancel()
	return b.fail(ctx, "delete", b.objects.remove(short, b.key(d)))
}

// Check reads a blob and compares its digest; each is told of every piece, and its
// error ends it. blob.ErrDamaged where the bytes have another digest.
func (b *Bucket) Check(ctx context.Context, d fleet.Digest, each func(bytes int) error) (size int64, err error) {
	body, _, err := b.Fetch(ctx, d)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	proven := blob.Prove(body, d)
	buf := make([]byte, copyBytes)
	for {
		n, err := proven.Read(buf)
		size += int64(n)
		if n > 0 && each != nil {
			if err := each(n); err != nil {
				return size, err
			}
		}
		switch {
		case errors.Is(err, io.EOF):
			return size, nil
		case errors.Is(err, blob.ErrDamaged):
			return size, &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("the image %s is damaged in the bucket", d), Hint: "push it again: it is replaced", Err: err}
		case err != nil:
			return size, err
		}
	}
}

// OpenBlob is Fetch for who needs no length.
func (b *Bucket) OpenBlob(ctx context.Context, d fleet.Digest) (io.ReadCloser, error) {
	body, _, err := b.Fetch(ctx, d)
	return body, err
}

// SignedURL is one with which anybody may read the blob for a while. It asks
// nobody whether there is one.
func (b *Bucket) SignedURL(ctx context.Context, d fleet.Digest, valid time.Duration) (string, error) {
	short, cancel := b.brief(ctx)
	defer cancel()
	u, err := b.objects.sign(short, b.key(d), valid)
	return u, b.fail(ctx, "sign", err)
}

// Owner is what Claim left; "" where nobody has claimed the bucket.
func (b *Bucket) Owner(ctx context.Context) (string, error) {
	short, cancel := b.brief(ctx)
	defer cancel()
	body, _, err := b.objects.get(short, b.prefix+ownerName)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", b.fail(ctx, "read the owner", err)
	}
	defer body.Close()
	text, err := io.ReadAll(io.LimitReader(body, maxOwner))
	return strings.TrimSpace(string(text)), b.fail(ctx, "read the owner", err)
}

// Claim makes the bucket, or its prefix, that of one installation. Each server
// removes what no release of its database refers to: two databases on one bucket
// would remove each other's. CodeConflict where it is another's.
func (b *Bucket) Claim(ctx context.Context, owner string) error {
	has, err := b.Owner(ctx)
	if err == nil && has == "" {
		short, cancel := b.brief(ctx)
		defer cancel()
		if err := b.objects.put(short, b.prefix+ownerName, strings.NewReader(owner+"\n"), int64(len(owner)+1)); err != nil {
			return b.fail(ctx, "claim", err)
		}
		has, err = b.Owner(ctx) // another may have been as fast
	}
	if err != nil || has == owner {
		return err
	}
	return &fleet.Error{Code: fleet.CodeConflict, Message: "the bucket " + b.name + " is another installation's",
		Hint: "give each a prefix of its own, such as s3://BUCKET/NAME; or, if it was this one's before its secret.key was lost, remove the object " + b.prefix + ownerName}
}
