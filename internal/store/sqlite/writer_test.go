package sqlite

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	lib "modernc.org/sqlite/lib"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var (
	ctx = context.Background()
	t0  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// held makes the writer wait inside a write, so that others queue up behind it.
func held(t *testing.T, s *Store) (release func()) {
	t.Helper()
	inside, gate, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.w.Do(ctx, func(*tx) error {
			close(inside)
			<-gate
			return nil
		})
	}()
	<-inside
	return func() {
		t.Helper()
		close(gate)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// queued waits until n writes wait.
func queued(t *testing.T, s *Store, n int) {
	t.Helper()
	await(t, s, func(waiting int) bool { return waiting >= n })
}

func await(t *testing.T, s *Store, enough func(waiting int) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !enough(len(s.w.queue)) {
		select {
		case <-deadline:
			t.Fatalf("%d writes wait", len(s.w.queue))
		case <-time.After(time.Millisecond):
		}
	}
}

func insert(t *tx, detail string) error {
	_, err := t.Exec("INSERT INTO events (time, device, version, name, detail, proven) VALUES (?, '', '', 'test', ?, 0)", t0.UnixMicro(), detail)
	return err
}

func details(t *testing.T, s *Store) map[string]bool {
	t.Helper()
	events, _, err := s.Events(ctx, "", 1000)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]bool{}
	for _, e := range events {
		m[e.Detail] = true
	}
	return m
}

// W2: those that fail, in each way, leave nothing, and the others of their batch stay.
func TestGroupCommit(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	open := held(t, s)
	before := s.w.transactions.Load()
	mine := errors.New("mine")
	var wg sync.WaitGroup
	errs := make([]error, 30)
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = s.w.Do(ctx, func(t *tx) error {
				if err := insert(t, fmt.Sprint("write ", i)); err != nil {
					return err
				}
				switch i % 3 {
				case 1:
					return mine
				case 2: // SQLite's own refusal: a constraint
					_, err := t.Exec("INSERT INTO catalogue (id, generation) VALUES (1, 1)")
					return err
				}
				return nil
			})
		}()
	}
	queued(t, s, len(errs))
	open()
	wg.Wait()
	have := details(t, s)
	for i, err := range errs {
		switch i % 3 {
		case 0:
			if err != nil || !have[fmt.Sprint("write ", i)] {
				t.Errorf("write %d: %v", i, err)
			}
		case 1:
			if !errors.Is(err, mine) {
				t.Errorf("write %d: %v", i, err)
			}
		case 2:
			if resultCode(err)&primary != lib.SQLITE_CONSTRAINT || fleet.CodeOf(err) != fleet.CodeInternal {
				t.Errorf("write %d: %v", i, err)
			}
		}
		if i%3 != 0 && have[fmt.Sprint("write ", i)] {
			t.Errorf("write %d failed and left something", i)
		}
	}
	if n := s.w.transactions.Load() - before; n != 1 {
		t.Errorf("%d transactions for %d writes that waited", n, len(errs))
	}
}

// onCommit has f called for every COMMIT from now on.
func onCommit(t *testing.T, s *Store, f func(real func() error) error) {
	t.Helper()
	err := s.w.Do(ctx, func(*tx) error { // in the writer's goroutine: nobody else looks at it
		real, first := s.w.commit, true
		s.w.commit = func() error {
			if first { // this write's own
				first = false
				return real()
			}
			return f(real)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// W1: nobody is answered before the COMMIT, nor with nil after one that failed.
func TestAnsweredAfterCommit(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	committing, gate := make(chan struct{}), make(chan error)
	onCommit(t, s, func(real func() error) error {
		committing <- struct{}{}
		if err := <-gate; err != nil {
			return err
		}
		return real()
	})
	for _, fail := range []error{nil, errors.New("no")} {
		done := make(chan error, 1)
		go func() {
			done <- s.w.Do(ctx, func(t *tx) error { return insert(t, fmt.Sprint("fail: ", fail)) })
		}()
		<-committing
		select {
		case err := <-done:
			t.Fatalf("answered %v before the COMMIT", err)
		default:
		}
		gate <- fail
		if err := <-done; !errors.Is(err, fail) {
			t.Errorf("%v, not %v", err, fail)
		}
		if got := details(t, s)[fmt.Sprint("fail: ", fail)]; got != (fail == nil) {
			t.Errorf("written: %v, commit: %v", got, fail)
		}
	}
}

// What is in memory of the catalogue moves with a COMMIT alone.
func TestGenerationFollowsCommit(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	generation := func() int64 {
		g, err := s.Generation(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	r := fleet.Release{Product: "p", Version: "1", ChunkSize: 1024, Image: fleet.Image{Size: 1}}
	was, fail := generation(), errors.New("no")
	verdict := fail
	onCommit(t, s, func(real func() error) error {
		if verdict != nil {
			return verdict
		}
		return real()
	})
	if _, _, err := s.Publish(ctx, r, t0); !errors.Is(err, fail) || generation() != was {
		t.Errorf("generation %d, then %d: %v", was, generation(), err)
	}
	verdict = nil
	if _, _, err := s.Publish(ctx, r, t0); err != nil || generation() == was {
		t.Errorf("generation %d, then %d: %v", was, generation(), err)
	}
}

// sqliteError looks like the driver's.
type sqliteError int

func (e sqliteError) Error() string { return fmt.Sprint("result code ", int(e)) }
func (e sqliteError) Code() int     { return int(e) }

// W3: after a disk error at a COMMIT nothing is acknowledged any more.
func TestBrokenDisk(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	onCommit(t, s, func(func() error) error { return sqliteError(lib.SQLITE_IOERR_FSYNC) })
	err := s.w.Do(ctx, func(t *tx) error { return insert(t, "lost") })
	if fleet.CodeOf(err) != fleet.CodeInternal || !strings.Contains(err.Error(), "disk failed") {
		t.Errorf("%v", err)
	}
	for range 2 {
		ran := false
		err := s.w.Do(ctx, func(*tx) error { ran = true; return nil })
		if err == nil || ran {
			t.Errorf("a write after the disk failed: %v, ran %v", err, ran)
		}
	}
	if len(details(t, s)) != 0 {
		t.Error("something was written")
	}
}

// A full disk fails the writes that wait with their code, and no later ones.
func TestFullDisk(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	full := true
	onCommit(t, s, func(real func() error) error {
		if full {
			full = false
			return sqliteError(lib.SQLITE_FULL)
		}
		return real()
	})
	if err := s.w.Do(ctx, func(t *tx) error { return insert(t, "no room") }); fleet.CodeOf(err) != fleet.CodeNoSpace {
		t.Errorf("%v", err)
	}
	if err := s.w.Do(ctx, func(t *tx) error { return insert(t, "room") }); err != nil {
		t.Errorf("%v", err)
	}
	if have := details(t, s); have["no room"] || !have["room"] {
		t.Errorf("%v", have)
	}
}

// A disk that fills up within a batch takes the whole transaction: none of it is
// acknowledged. The file's own page limit plays the disk.
func TestFullDiskWithinABatch(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	open := held(t, s)
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = s.w.Do(ctx, func(t *tx) error {
				var n int
				if err := t.Row("PRAGMA page_count").Scan(&n); err != nil {
					return err
				}
				if err := t.Row(fmt.Sprintf("PRAGMA max_page_count = %d", n)).Scan(&n); err != nil {
					return err
				}
				for range 50 {
					if err := insert(t, fmt.Sprint("write ", i, strings.Repeat(" x", 1000))); err != nil {
						return err
					}
				}
				return nil
			})
		}()
	}
	queued(t, s, len(errs))
	open()
	wg.Wait()
	acknowledged, full := 0, 0
	have := details(t, s)
	for i, err := range errs {
		switch fleet.CodeOf(err) {
		case "":
			acknowledged++
			if !have[fmt.Sprint("write ", i, strings.Repeat(" x", 1000))] {
				t.Errorf("write %d was acknowledged and is gone", i)
			}
		case fleet.CodeNoSpace:
			full++
		default:
			t.Errorf("write %d: %v", i, err)
		}
	}
	if full == 0 || len(have) != acknowledged {
		t.Errorf("%d full, %d acknowledged, %d there", full, acknowledged, len(have))
	}
	// Room again: the writer goes on.
	err := s.w.Do(ctx, func(t *tx) error {
		var n int
		if err := t.Row("PRAGMA max_page_count = 1000000").Scan(&n); err != nil {
			return err
		}
		return insert(t, "after")
	})
	if err != nil || !details(t, s)["after"] {
		t.Errorf("%v", err)
	}
}

// A caller that gives up while its write waits gets its way; once it runs, the
// answer is what became of it.
func TestGivingUp(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	open := held(t, s)
	waiting, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.w.Do(waiting, func(t *tx) error { return insert(t, "taken back") }) }()
	queued(t, s, 1)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	open()
	running, cancel := context.WithCancel(ctx)
	err := s.w.Do(running, func(t *tx) error {
		cancel()
		return insert(t, "it ran")
	})
	if have := details(t, s); err != nil || have["taken back"] || !have["it ran"] {
		t.Errorf("%v %v", err, have)
	}
}

func TestTooManyWait(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	open := held(t, s)
	ended, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range maxWaiting {
		wg.Add(1)
		go func() {
			defer wg.Done()
			s.w.Do(ended, func(*tx) error { return nil })
		}()
	}
	queued(t, s, maxWaiting)
	if err := s.w.Do(ctx, func(*tx) error { return nil }); fleet.CodeOf(err) != fleet.CodeBusy {
		t.Errorf("%v", err)
	}
	cancel()
	wg.Wait()
	open()
	await(t, s, func(waiting int) bool { return waiting == 0 })
	if err := s.w.Do(ctx, func(t *tx) error { return insert(t, "later") }); err != nil {
		t.Errorf("%v", err)
	}
}

// Close writes what waits, and refuses what comes later.
func TestCloseWritesWhatWaits(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	open := held(t, s)
	var wg sync.WaitGroup
	errs := make([]error, 300) // more than a batch
	for i := range errs {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = s.w.Do(ctx, func(t *tx) error { return insert(t, fmt.Sprint("write ", i)) })
		}()
	}
	queued(t, s, len(errs))
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	<-s.w.stopping
	if err := s.w.Do(ctx, func(*tx) error { return nil }); fleet.CodeOf(err) != fleet.CodeBusy {
		t.Errorf("after the stop: %v", err)
	}
	open()
	wg.Wait()
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
	s = openAt(t, dir)
	defer s.Close()
	have := details(t, s)
	for i, err := range errs {
		if err != nil || !have[fmt.Sprint("write ", i)] {
			t.Errorf("write %d: %v", i, err)
		}
	}
}
