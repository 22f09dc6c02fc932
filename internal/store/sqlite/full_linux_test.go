package sqlite

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// A disk that is full at any byte refuses writes with its own code, loses nothing
// that was acknowledged, keeps nothing that was refused, goes on serving reads, and
// takes writes again when there is room. The second half ends while it is full.
func TestFullDiskBelowSQLite(t *testing.T) {
	for room := int64(0); room < 200_000; room += 12_301 { // a prime: ends anywhere within pages and frames
		for _, ends := range []bool{false, true} {
			fullAt(t, room, ends)
		}
	}
}

func fullAt(t *testing.T, room int64, endsFull bool) {
	t.Helper()
	dir := t.TempDir()
	d := newDisk(t, dir)
	s, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret, params: []string{"vfs=" + diskName, "_pragma=wal_autocheckpoint(8)"}})
	if err != nil {
		t.Fatal(err)
	}
	name := func(n int) string { return fmt.Sprint(n, strings.Repeat(" x", 200+n*97%900)) }
	write := func(n int) error { return s.w.Do(ctx, func(t *tx) error { return insert(t, name(n)) }) }
	if err := write(0); err != nil {
		t.Fatal(err)
	}
	d.setQuota(d.used() + room)
	acknowledged, refused := map[int]bool{0: true}, 0
	for n := 1; n < 400 && refused < 5; n++ {
		switch err := write(n); {
		case err == nil:
			acknowledged[n] = true
		default:
			refused++
			var e *fleet.Error
			if !errors.As(err, &e) || e.Code != fleet.CodeNoSpace || e.Hint == "" {
				t.Fatalf("room for %d bytes, write %d: %v", room, n, err)
			}
			if _, err := s.ListReleases(ctx, ""); err != nil {
				t.Fatalf("room for %d bytes: no reads either: %v", room, err)
			}
		}
	}
	if refused < 5 {
		t.Fatalf("%d bytes were never full", room)
	}
	if !endsFull {
		d.setQuota(0)
		if err := write(1000); err != nil {
			t.Fatalf("there is room again, after %d bytes: %v", room, err)
		}
		acknowledged[1000] = true
	}
	// Full, the log can't be folded into the file: it stays, which is no failure of the writes.
	if err := s.Close(); err != nil && (!endsFull || resultCode(err) == 0) {
		t.Fatal(err)
	}
	s = openAt(t, dir)
	defer s.Close()
	have := details(t, s)
	for n := range acknowledged {
		if !have[name(n)] {
			t.Errorf("room for %d bytes: write %d was acknowledged and is gone", room, n)
		}
	}
	if len(have) != len(acknowledged) {
		t.Errorf("room for %d bytes: %d there, %d acknowledged", room, len(have), len(acknowledged))
	}
	if wrong := integrity(s); wrong != "" {
		t.Errorf("room for %d bytes: %s", room, wrong)
	}
}
