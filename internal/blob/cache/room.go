package cache

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// The bound of the folder: which copies there are, who was used last, who goes.

// load reads what earlier runs left, in the order of its last use.
func (s *Store) load() error {
	found, err := s.folder.List(context.Background())
	if err != nil {
		return err
	}
	var entries []*entry
	for _, d := range found {
		st, err := os.Stat(s.path(d))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		entries = append(entries, &entry{digest: d, size: st.Size(), touched: st.ModTime()})
	}
	slices.SortFunc(entries, func(a, b *entry) int {
		return cmp.Or(a.touched.Compare(b.touched), slices.Compare(a.digest[:], b.digest[:]))
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		s.copies[e.digest] = s.order.PushFront(e)
		s.used += e.size
	}
	s.evict(s.o.Limit, nil) // the bound may have been lowered
	return nil
}

// note: there is a copy of d, of so many bytes, and it was just compared. Others
// make room for it.
func (s *Store) note(d fleet.Digest, size int64) {
	now := s.o.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	el := s.copies[d]
	if el == nil {
		el = s.order.PushFront(&entry{digest: d})
		s.copies[d] = el
	}
	e := el.Value.(*entry)
	s.used += size - e.size
	e.size, e.proven, e.touched = size, now, now
	s.order.MoveToFront(el)
	s.evict(s.o.Limit, el)
}

func (s *Store) forget(d fleet.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.copies[d]; el != nil {
		s.used -= el.Value.(*entry).size
		s.order.Remove(el)
		delete(s.copies, d)
	}
}

// take makes room for n bytes that are about to come, and counts them. CodeTooLarge
// where there is never so much, CodeBusy where others are coming in.
func (s *Store) take(n int64) error {
	if n > s.o.Limit {
		return &fleet.Error{Code: fleet.CodeTooLarge, Message: "an image is larger than the whole cache", Hint: "give it more room with --blob-cache-size"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.evict(s.o.Limit-n, nil) {
		return fleet.Errorf(fleet.CodeBusy, "the cache is full of what is coming in")
	}
	s.used += n
	return nil
}

// give ends what take began.
func (s *Store) give(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
}

// shrink gives n bytes back to the disk, if there are copies; false where there are none.
func (s *Store) shrink(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.order.Len()
	s.evict(max(s.used-n, 0), nil)
	return s.order.Len() < before
}

// evict removes copies until at most limit bytes are used, those first that were
// used longest ago, and never keep. A copy that can't be removed stays counted. It
// is called with mu locked: no copy is opened meanwhile whose name goes.
func (s *Store) evict(limit int64, keep *list.Element) bool {
	for el := s.order.Back(); el != nil && s.used > limit; {
		before := el.Prev()
		e := el.Value.(*entry)
		if el != keep {
			if err := os.Remove(s.path(e.digest)); err == nil || errors.Is(err, fs.ErrNotExist) {
				s.used -= e.size
				s.order.Remove(el)
				delete(s.copies, e.digest)
			} else {
				s.o.Log.Warn("a copy in the cache can't be removed", "sha256", e.digest.String(), "error", err)
			}
		}
		el = before
	}
	return s.used <= limit
}

// Usage is how many copies there are, and how many bytes they take.
func (s *Store) Usage() (copies int, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.order.Len(), s.used
}
