// Package checked serves no byte of a blob whose digest it has not compared since
// the start of the program: at first use, or before that by a pass over all blobs
// which goes on slowly for ever (scrub.go). What was damaged is refused from then
// on, until it is pushed again or found whole. It knows nothing of what blobs mean.
package checked

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// retryAfter is how long a blob that was found damaged is refused without another
// look: each look reads all of it, and whoever asks again and again must not keep
// the disk busy. One that was brought back from a backup is served that soon.
const retryAfter = time.Minute

// Files are blobs in files: dir.Dir, cache.Store.
type Files interface {
	blob.Store
	blob.Stager
	checker
	OpenBlob(ctx context.Context, d fleet.Digest) (io.ReadCloser, error)
}

// checker reads blobs where they are stored, and compares.
type checker interface {
	Check(ctx context.Context, d fleet.Digest, each func(bytes int) error) (size int64, err error)
	List(ctx context.Context) ([]fleet.Digest, error)
}

var _ blob.Store = (*Store)(nil)
var _ blob.Stager = (*Store)(nil)

// Store is Files whose Open answers checked blobs only.
type Store struct {
	Files
	*verdicts
	proven bool
}

// New makes a Store.
func New(f Files, log *slog.Logger) *Store { return &Store{f, newVerdicts(f, log), false} }

// NewProven makes a Store of Files that compare by themselves what they open, and
// whose Check looks elsewhere, where it costs: cache.Store. There is no look before
// the first byte nor a pass behind the start; what was damaged is refused as ever.
func NewProven(f Files, log *slog.Logger) *Store { return &Store{f, newVerdicts(f, log), true} }

// Open implements blob.Store. It waits for the first look at a blob, together with
// all others who want it: BenchmarkFirstLook, and what the disk takes.
func (s *Store) Open(ctx context.Context, d fleet.Digest) (*os.File, error) {
	if s.proven {
		if err := s.refused(d); err != nil {
			return nil, err
		}
		f, err := s.Files.Open(ctx, d)
		return f, s.damagedOr(ctx, d, err)
	}
	if err := s.verified(ctx, d); err != nil {
		return nil, err
	}
	return s.Files.Open(ctx, d)
}

// OpenBlob is for who compares the digest by himself, as the cache of v1 does
// while it prepares chunks: it only refuses what is known to be damaged.
func (s *Store) OpenBlob(ctx context.Context, d fleet.Digest) (io.ReadCloser, error) {
	if err := s.refused(d); err != nil {
		return nil, err
	}
	f, err := s.Files.OpenBlob(ctx, d)
	return f, s.damagedOr(ctx, d, err)
}

// Put implements blob.Store: what enters is checked by that.
func (s *Store) Put(ctx context.Context, src io.Reader, size int64) (fleet.Digest, bool, error) {
	d, created, err := s.Files.Put(ctx, src, size)
	if err == nil {
		s.good(d)
	}
	return d, created, err
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, d fleet.Digest) error {
	s.forget(d)
	return s.Files.Delete(ctx, d)
}

// Stage implements blob.Stager.
func (s *Store) Stage(ctx context.Context, room int64) (blob.Staged, error) {
	st, err := s.Files.Stage(ctx, room)
	if err != nil {
		return nil, err
	}
	return staged{st, s.verdicts}, nil
}

type staged struct {
	blob.Staged
	v *verdicts
}

func (s staged) Commit(ctx context.Context) (fleet.Digest, bool, error) {
	d, created, err := s.Staged.Commit(ctx)
	if err == nil {
		s.v.good(d)
	}
	return d, created, err
}

// verdicts is what is known of blobs since the start: 40 bytes each.
type verdicts struct {
	files checker
	log   *slog.Logger
	look  singleflight.Group
	slots chan struct{} // looks at once

	mu      sync.Mutex
	whole   map[fleet.Digest]bool
	damaged map[fleet.Digest]verdict
	// changes counts what became of blobs by other hands, so that a look that began before is
	// not believed after.
	changes map[fleet.Digest]int
}

type verdict struct {
	err error
	at  time.Time
}

func newVerdicts(f checker, log *slog.Logger) *verdicts {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &verdicts{files: f, log: log, slots: make(chan struct{}, runtime.GOMAXPROCS(0)),
		whole: map[fleet.Digest]bool{}, damaged: map[fleet.Digest]verdict{}, changes: map[fleet.Digest]int{}}
}

// verified is nil once the blob was compared.
func (v *verdicts) verified(ctx context.Context, d fleet.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	v.mu.Lock()
	whole := v.whole[d]
	v.mu.Unlock()
	if whole {
		return nil
	}
	if err := v.refused(d); err != nil {
		return err
	}
	// One look for all who wait; the first to give up must not fail the others.
	done := v.look.DoChan(string(d[:]), func() (any, error) {
		v.slots <- struct{}{}
		defer func() { <-v.slots }()
		_, err := v.check(context.WithoutCancel(ctx), d, nil)
		return nil, err
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check looks at a blob and notes what it finds.
func (v *verdicts) check(ctx context.Context, d fleet.Digest, each func(int) error) (size int64, err error) {
	v.mu.Lock()
	before := v.changes[d]
	v.mu.Unlock()
	size, err = v.files.Check(ctx, d, each)
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case err != nil && !isDamage(err):
		return size, err // it is not there, or could not be read this time: nothing is known by that
	case v.changes[d] != before:
		// It was replaced or removed meanwhile. The error still stands for who asked: what was
		// read was not whole.
		return size, err
	case err != nil:
		return size, v.condemn(ctx, d, err)
	}
	if _, was := v.damaged[d]; was {
		delete(v.damaged, d)
		v.log.InfoContext(ctx, "a stored image or stream that was damaged is whole again", "sha256", d.String())
	}
	v.whole[d] = true
	return size, nil
}

// condemn notes a damaged blob, and answers why it is refused. It is called with mu locked.
func (v *verdicts) condemn(ctx context.Context, d fleet.Digest, err error) error {
	err = refusal(d, err)
	if _, known := v.damaged[d]; !known {
		v.log.ErrorContext(ctx, "a stored image or stream is damaged: it is served to nobody", "sha256", d.String(), "error", cause(err),
			"hint", "push the release again: what is damaged is replaced; 'runnel fsck' names the release")
	}
	delete(v.whole, d)
	v.damaged[d] = verdict{err, time.Now()}
	return err
}

// damagedOr is err, noted where it tells of damage.
func (v *verdicts) damagedOr(ctx context.Context, d fleet.Digest, err error) error {
	if err == nil || !errors.Is(err, blob.ErrDamaged) {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.condemn(ctx, d, err)
}

// isDamage: a disk that can't read a place of the file any more has damaged it too,
// and takes its time to say so.
func isDamage(err error) bool {
	return errors.Is(err, blob.ErrDamaged) || errors.Is(err, syscall.EIO)
}

func refusal(d fleet.Digest, err error) error {
	return &fleet.Error{Code: fleet.CodeInternal, Message: "the stored bytes of " + d.String() + " are damaged", Hint: "push the release again: what is damaged is replaced", Err: cause(err)}
}

// cause is what an error says beneath the domain's words.
func cause(err error) error {
	var f *fleet.Error
	if errors.As(err, &f) && f.Err != nil {
		return f.Err
	}
	return err
}

// refused is why a blob is not served without another look.
func (v *verdicts) refused(d fleet.Digest) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if bad, ok := v.damaged[d]; ok && time.Since(bad.at) < retryAfter {
		return bad.err
	}
	return nil
}

// good notes that all of a blob went through our hands.
func (v *verdicts) good(d fleet.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.damaged, d)
	v.whole[d] = true
	v.changes[d]++
}

func (v *verdicts) forget(d fleet.Digest) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.damaged, d)
	delete(v.whole, d)
	v.changes[d]++
}
