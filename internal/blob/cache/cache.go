// Package cache makes a blob.Store of a remote one and a local folder of bounded
// size. What is asked for is fetched once, compared with its digest on the way, and
// served from its file, so that images still go out by sendfile; what was used
// least recently makes room.
//
//	CACHE/lock               held while a server runs; empty
//	CACHE/<64 hex digits>    a copy, as in blob/dir
//	CACHE/tmp/               what is being fetched or pushed
//
// Invariants:
//
//	C1  What Open answers was compared with its digest by this process, at most provenFor
//	    ago. A copy that is found damaged is removed and fetched again.
//	C2  Copies, with those that are being fetched, take Limit bytes at most, and what is
//	    being pushed comes on top until it is up. A copy that is open while it is removed
//	    takes its room until it is closed.
//	C3  A blob is fetched by one at a time, however many wait for it, and no one who waits
//	    and goes away ends it for the others.
//
// A copy is written to tmp, flushed and renamed: a crash leaves whole copies, and
// tmp is emptied at the next start. The folder may be removed while no server runs.
// What the remote store did not take, of a Put that failed, may stay here as a copy
// under its digest, in no list. The package knows nothing of what blobs mean.
package cache

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/singleflight"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	// DefaultLimit is room for some sixty images of the largest size with their streams.
	DefaultLimit = int64(2 << 30) // bytes
	// MinLimit is room for as many fetches at once as there are, of the largest stream.
	MinLimit = int64(128 << 20) // bytes
	// maxFetches at once, so that one blob more can't starve those that are on their way.
	maxFetches = 4

	// provenFor is how long a comparison is believed.
	provenFor = 24 * time.Hour
	// DefaultWait is how long a caller waits for a fetch: less than the 30 s after which a device
	// hangs up. The fetch goes on.
	DefaultWait = 20 * time.Second
	// awayFor is how long nobody asks again a store that did not answer.
	awayFor = 5 * time.Second
	// shrinkBytes of copies go at once where the disk is full: room for the largest release.
	shrinkBytes = int64(64 << 20)
	// touchEvery bounds how often the use of a copy is written down, for the order after a start.
	touchEvery = time.Minute

	lockName = "lock"
	stripes  = 64
)

// Remote is where the blobs are. Errors: CodeNotFound for what is not there,
// CodeBusy where it does not answer.
type Remote interface {
	// Fetch reads a blob of size bytes from its beginning.
	Fetch(ctx context.Context, d fleet.Digest) (body io.ReadCloser, size int64, err error)
	// Upload stores src, of size bytes, under their digest d, also where there is one.
	Upload(ctx context.Context, d fleet.Digest, src io.ReadSeeker, size int64) (created bool, err error)
	// Check reads a blob and compares its digest.
	Check(ctx context.Context, d fleet.Digest, each func(bytes int) error) (size int64, err error)
	List(ctx context.Context) ([]fleet.Digest, error)
	Delete(ctx context.Context, d fleet.Digest) error
}

// Options of Open; Remote and Path are required.
type Options struct {
	Remote  Remote
	Path    string
	Limit   int64         // bytes; 0: DefaultLimit
	Reserve int64         // as of dir.Options
	Wait    time.Duration // 0: DefaultWait
	Log     *slog.Logger
	Now     func() time.Time // nil: time.Now
}

// Store is an open cache in front of its remote store.
type Store struct {
	o      Options
	folder *dir.Dir
	lock   *flock.Flock
	flight singleflight.Group
	slots  chan struct{}          // fetches at once
	puts   [stripes]chan struct{} // one Put of a blob at a time; by the digest's first byte

	mu     sync.Mutex
	copies map[fleet.Digest]*list.Element // of *entry
	order  *list.List                     // front: used last
	used   int64                          // bytes of copies, and of those that are being fetched
	away   time.Time                      // when the remote store last failed to answer; zero: it answers
}

// entry is a copy.
type entry struct {
	digest  fleet.Digest
	size    int64
	proven  time.Time // zero: not by this process
	touched time.Time
}

var _ blob.Store = (*Store)(nil)
var _ blob.Stager = (*Store)(nil)

// Open opens the folder, makes it if need be, and removes what a crash left in it.
// CodeConflict where another server has it. It does not ask the remote store.
func Open(o Options) (*Store, error) {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	if o.Wait == 0 {
		o.Wait = DefaultWait
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(o.Path, 0o700); err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the cache folder can't be made", Err: err, Hint: "name a folder that this user may write to with --blob-cache"}
	}
	lock := flock.New(filepath.Join(o.Path, lockName), flock.SetPermissions(0o600))
	got, err := lock.TryLock()
	if err != nil {
		return nil, &fleet.Error{Code: fleet.CodeInvalid, Message: "the cache folder can't be locked", Err: err, Hint: "it must be on a local file system, and this user must be allowed to write to it"}
	}
	if !got {
		return nil, &fleet.Error{Code: fleet.CodeConflict, Message: "another server uses the cache folder " + o.Path, Hint: "give each server one of its own with --blob-cache"}
	}
	s := &Store{o: o, lock: lock, slots: make(chan struct{}, maxFetches), copies: map[fleet.Digest]*list.Element{}, order: list.New()}
	for i := range s.puts {
		s.puts[i] = make(chan struct{}, 1)
	}
	if s.folder, err = dir.Open(dir.Options{Path: o.Path, Reserve: o.Reserve}); err == nil {
		err = s.load()
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return s, nil
}

// Close gives the folder free. Nobody may be using the store.
func (s *Store) Close() error { return s.lock.Close() }

func (s *Store) path(d fleet.Digest) string { return filepath.Join(s.o.Path, d.String()) }

// Open implements blob.Store, for copies that are there and for those that are
// not yet. CodeBusy where the remote store does not answer, or not soon enough.
func (s *Store) Open(ctx context.Context, d fleet.Digest) (*os.File, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for range 3 { // a copy may go again before it is opened: so little room, and so much asked for
		if f := s.local(d); f != nil {
			return f, nil
		}
		done := s.flight.DoChan(string(d[:]), func() (any, error) { return nil, s.ensure(context.WithoutCancel(ctx), d) })
		wait := time.NewTimer(s.o.Wait)
		select {
		case r := <-done:
			wait.Stop()
			if r.Err != nil {
				return nil, r.Err
			}
		case <-wait.C:
			return nil, fleet.Errorf(fleet.CodeBusy, "the image %s is still on its way from where it is stored", d)
		case <-ctx.Done():
			wait.Stop()
			return nil, ctx.Err()
		}
	}
	return nil, &fleet.Error{Code: fleet.CodeBusy, Message: "copies leave the cache as soon as they come", Hint: "give it more room with --blob-cache-size"}
}

// OpenBlob is Open for who only reads from the beginning.
func (s *Store) OpenBlob(ctx context.Context, d fleet.Digest) (io.ReadCloser, error) {
	f, err := s.Open(ctx, d)
	if err != nil {
		return nil, err // not a nil *os.File in an interface
	}
	return f, nil
}

// local opens a proven copy; nil where there is none.
func (s *Store) local(d fleet.Digest) *os.File {
	now := s.o.Now()
	s.mu.Lock()
	el := s.copies[d]
	if el == nil {
		s.mu.Unlock()
		return nil
	}
	e := el.Value.(*entry)
	s.order.MoveToFront(el)
	fine := !e.proven.IsZero() && now.Sub(e.proven) < provenFor
	size := e.size
	touch := now.Sub(e.touched) >= touchEvery
	if touch {
		e.touched = now
	}
	s.mu.Unlock()
	if !fine {
		return nil
	}
	f, err := os.Open(s.path(d))
	if err == nil {
		st, e := f.Stat()
		if e == nil && st.Size() == size {
			if touch {
				_ = os.Chtimes(s.path(d), now, now) // the order after a start is worth no error
			}
			return f
		}
		f.Close()
	}
	// Somebody else was at it: it is looked at again, and fetched if need be.
	s.mu.Lock()
	if el := s.copies[d]; el != nil {
		el.Value.(*entry).proven = time.Time{}
	}
	s.mu.Unlock()
	return nil
}

// ensure makes a proven copy be there: the one that is, or a new one.
func (s *Store) ensure(ctx context.Context, d fleet.Digest) error {
	s.mu.Lock()
	el := s.copies[d]
	fine := el != nil && !el.Value.(*entry).proven.IsZero() && s.o.Now().Sub(el.Value.(*entry).proven) < provenFor
	s.mu.Unlock()
	switch {
	case fine:
		return nil // another flight was as fast
	case el != nil:
		size, err := s.folder.Check(ctx, d, nil)
		if err == nil {
			s.note(d, size)
			return nil
		}
		if fleet.CodeOf(err) != fleet.CodeNotFound {
			s.o.Log.WarnContext(ctx, "a copy in the cache can't be used: it is fetched again", "sha256", d.String(), "error", err)
		}
		if err := s.drop(ctx, d); err != nil {
			return err
		}
	}
	return s.fetch(ctx, d)
}

// fetch makes a copy.
func (s *Store) fetch(ctx context.Context, d fleet.Digest) error {
	if err := s.isAway(); err != nil {
		return err
	}
	s.slots <- struct{}{}
	defer func() { <-s.slots }()
	if err := s.isAway(); err != nil { // who was before us may have found out
		return err
	}
	err := s.copyIn(ctx, d)
	if fleet.CodeOf(err) == fleet.CodeNoSpace && s.shrink(shrinkBytes) {
		err = s.copyIn(ctx, d)
	}
	s.answered(ctx, err)
	switch {
	case fleet.CodeOf(err) == fleet.CodeNoSpace:
		s.o.Log.ErrorContext(ctx, "there is no room for a copy: devices wait for it", "sha256", d.String(), "error", err,
			"hint", "make room on the disk of the cache folder, or name another with --blob-cache")
	case errors.Is(err, blob.ErrDamaged):
		return &fleet.Error{Code: fleet.CodeInternal, Message: fmt.Sprintf("the image %s is damaged where it is stored", d), Hint: "push it again: it is replaced", Err: err}
	}
	return err
}

func (s *Store) copyIn(ctx context.Context, d fleet.Digest) error {
	body, size, err := s.o.Remote.Fetch(ctx, d)
	if err != nil {
		return err
	}
	defer body.Close()
	if size < 0 {
		return fleet.Errorf(fleet.CodeBusy, "where images are stored nobody says how long %s is", d)
	}
	if err := s.take(size); err != nil {
		return err
	}
	// The proof ends the copy before it has a name.
	_, _, err = s.folder.Put(ctx, blob.Prove(body, d), size)
	s.give(size)
	if err == nil {
		s.note(d, size)
	}
	return err
}

// isAway is the error for who asks too soon after one had no answer.
func (s *Store) isAway() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.away.IsZero() && s.o.Now().Sub(s.away) < awayFor {
		return fleet.Errorf(fleet.CodeBusy, "where images are stored there was no answer")
	}
	return nil
}

// answered notes whether the remote store did, and tells the log when that changes.
func (s *Store) answered(ctx context.Context, err error) {
	busy := fleet.CodeOf(err) == fleet.CodeBusy
	if err != nil && !busy && fleet.CodeOf(err) != fleet.CodeNotFound {
		return // it says nothing of that
	}
	s.mu.Lock()
	was := !s.away.IsZero()
	s.away = time.Time{}
	if busy {
		s.away = s.o.Now()
	}
	s.mu.Unlock()
	switch {
	case busy && !was:
		var f *fleet.Error
		hint := ""
		if errors.As(err, &f) {
			hint = f.Hint
		}
		s.o.Log.ErrorContext(ctx, "where images are stored there is no answer: what is not in the cache is served to nobody", "error", err, "hint", hint)
	case !busy && was:
		s.o.Log.InfoContext(ctx, "where images are stored there are answers again")
	}
}

// Put implements blob.Store. created is by what was there before: of two servers
// that put the same at once both may say so.
func (s *Store) Put(ctx context.Context, src io.Reader, size int64) (fleet.Digest, bool, error) {
	if err := ctx.Err(); err != nil {
		return fleet.Digest{}, false, err
	}
	// Copies make room for what is pushed; Put itself has read from src when it finds out.
	probe, err := s.stage(ctx, size)
	if err != nil {
		return fleet.Digest{}, false, err
	}
	probe.Abort()
	d, _, err := s.folder.Put(ctx, src, size)
	if err != nil {
		return fleet.Digest{}, false, err
	}
	created, err := s.upload(ctx, d)
	if err != nil {
		return fleet.Digest{}, false, err
	}
	return d, created, nil
}

// upload sends a copy up that was just written, and so compared.
func (s *Store) upload(ctx context.Context, d fleet.Digest) (created bool, err error) {
	turn := s.puts[d[0]%stripes]
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return false, ctx.Err()
	}
	f, err := s.folder.Open(ctx, d)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return false, fleet.Errorf(fleet.CodeBusy, "the image %s left the cache before it was stored", d) // a Delete or another copy came between
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return false, fmt.Errorf("cache: %w", err)
	}
	s.note(d, st.Size())
	created, err = s.o.Remote.Upload(ctx, d, f, st.Size())
	if ctx.Err() == nil {
		s.answered(ctx, err)
	}
	return created && err == nil, err
}

// Stage implements blob.Stager.
func (s *Store) Stage(ctx context.Context, room int64) (blob.Staged, error) {
	st, err := s.stage(ctx, room)
	if err != nil {
		return nil, err
	}
	return staged{st, s}, nil
}

// stage is a place in the folder, for which copies make room where the disk is full.
func (s *Store) stage(ctx context.Context, room int64) (blob.Staged, error) {
	st, err := s.folder.Stage(ctx, room)
	if fleet.CodeOf(err) == fleet.CodeNoSpace && s.shrink(max(room, shrinkBytes)) {
		st, err = s.folder.Stage(ctx, room)
	}
	return st, err
}

type staged struct {
	blob.Staged
	s *Store
}

// Commit implements blob.Staged.
func (st staged) Commit(ctx context.Context) (fleet.Digest, bool, error) {
	d, _, err := st.Staged.Commit(ctx)
	if err != nil {
		return fleet.Digest{}, false, err
	}
	created, err := st.s.upload(ctx, d)
	if err != nil {
		return fleet.Digest{}, false, err
	}
	return d, created, nil
}

// Verify implements blob.Store, where the blob is stored: copies are compared when they are used.
func (s *Store) Verify(ctx context.Context, d fleet.Digest) error {
	_, err := s.Check(ctx, d, nil)
	return err
}

// Check is Verify for who also wants to know how long the blob is, or to be told
// of each piece that was read. What is damaged there and whole here is mended.
func (s *Store) Check(ctx context.Context, d fleet.Digest, each func(bytes int) error) (size int64, err error) {
	size, err = s.o.Remote.Check(ctx, d, each)
	if !errors.Is(err, blob.ErrDamaged) {
		return size, err
	}
	whole, e := s.folder.Check(ctx, d, nil)
	if e != nil {
		return size, err // no copy, or no better one
	}
	if _, e := s.upload(ctx, d); e != nil {
		return size, errors.Join(err, e)
	}
	s.o.Log.WarnContext(ctx, "a stored image or stream was damaged, and is mended from the cache", "sha256", d.String(), "error", err)
	return whole, nil
}

// List implements blob.Store.
func (s *Store) List(ctx context.Context) ([]fleet.Digest, error) { return s.o.Remote.List(ctx) }

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, d fleet.Digest) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.o.Remote.Delete(ctx, d)
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		return err
	}
	return errors.Join(err, s.drop(ctx, d))
}

// drop removes a copy, if there is one.
func (s *Store) drop(ctx context.Context, d fleet.Digest) error {
	err := s.folder.Delete(context.WithoutCancel(ctx), d)
	if err != nil && fleet.CodeOf(err) != fleet.CodeNotFound {
		return err
	}
	s.forget(d)
	return nil
}
