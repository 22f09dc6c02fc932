package sqlite

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// asKilled is a folder as a killed server leaves it: the log is not folded in.
func asKilled(t *testing.T, fill func(*Store)) string {
	t.Helper()
	dir, copied := t.TempDir(), t.TempDir()
	s := openAt(t, dir)
	defer s.Close()
	if err := s.AddDevice(ctx, fleet.Device{ID: "d", Product: "p"}, &fleet.Key{1}, t0); err != nil {
		t.Fatal(err)
	}
	if fill != nil {
		fill(s)
	}
	for _, name := range []string{"runnel.db", "runnel.db-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil || len(b) == 0 {
			t.Fatal(name, err)
		}
		if err := os.WriteFile(filepath.Join(copied, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return copied
}

func openToCheck(t *testing.T, dir string, secret [32]byte) *Store {
	t.Helper()
	s, err := OpenToCheck(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A look reads what a killed server left in its log, and leaves both files as they are.
func TestCheckChangesNothing(t *testing.T) {
	dir := asKilled(t, nil)
	read := func() (all []byte) {
		for _, name := range []string{"runnel.db", "runnel.db-wal"} {
			b, err := os.ReadFile(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		return all
	}
	before := read()
	s := openToCheck(t, dir, testSecret)
	if found, err := s.Check(ctx); err != nil || len(found) != 0 {
		t.Errorf("%v %v", found, err)
	}
	if d, err := s.Device(ctx, "d"); err != nil || d.Product != "p" {
		t.Errorf("%v %v", d, err)
	}
	if err := s.Append(ctx, fleet.Event{Time: time.Now(), Name: "test"}); err == nil {
		t.Error("it was written to")
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(before, read()) {
		t.Error("the files were changed")
	}
}

func found(t *testing.T, s *Store, part string) {
	t.Helper()
	list, err := s.Check(ctx)
	if err != nil || len(list) == 0 || !strings.Contains(list[0].Message, part) || list[0].Hint == "" {
		t.Errorf("%v %v, not %q", list, err, part)
	}
}

func TestCheckFinds(t *testing.T) {
	found(t, openToCheck(t, asKilled(t, nil), [32]byte{9}), "secret.key is not the one")
	for part, statement := range map[string]string{
		"can't be opened":      "UPDATE keys SET sealed = x'00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff'",
		"a row of deployments": "INSERT INTO deployments (device, release_id, state, chunks_received, chunks_total, verified, boot_status, reason, proven, started_at, updated_at) SELECT 'nobody', 7, 'offered', 0, 0, 0, '', '', 0, 0, 0",
		"missing from index":   "PRAGMA writable_schema = 1; UPDATE sqlite_schema SET sql = 'CREATE INDEX events_device ON events (name)' WHERE name = 'events_device'",
	} {
		dir := filled(t)
		alter(t, dir, "INSERT INTO events (time, device, version, name, detail, proven) VALUES (1, 'x', '', 'y', '', 1)")
		alter(t, dir, statement)
		found(t, openToCheck(t, dir, testSecret), part)
	}
}

// Damage of a page is found by the check, or stops the opening with words.
func TestCheckFindsDamagedPages(t *testing.T) {
	dir := filled(t)
	path := filepath.Join(dir, "runnel.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 4096; at < len(whole); at += 4096 {
		bad := bytes.Clone(whole)
		for i := range 4096 {
			bad[at+i] = byte(i*7 + 13)
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := OpenToCheck(ctx, Options{Path: path, Secret: testSecret})
		if err != nil {
			if fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("page %d: %v", at/4096, err)
			}
			continue
		}
		if list, err := s.Check(ctx); err == nil && len(list) == 0 {
			t.Errorf("page %d: nothing found", at/4096)
		}
		s.Close()
	}
}

func TestCheckRefuses(t *testing.T) {
	none := t.TempDir()
	for part, prepare := range map[string]func(dir string){
		"there is no database": func(dir string) { os.Remove(filepath.Join(dir, "runnel.db")) },
		"newer version": func(dir string) {
			alter(t, dir, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
		},
		"older version":   func(dir string) { alter(t, dir, "DELETE FROM goose_db_version WHERE version_id > 1") },
		"another program": func(dir string) { alter(t, dir, "PRAGMA application_id = 77") },
		"is no SQLite":    func(dir string) { os.WriteFile(filepath.Join(dir, "runnel.db"), []byte("something"), 0o600) },
	} {
		dir := filled(t)
		prepare(dir)
		_, err := OpenToCheck(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret})
		if fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: %v", part, err)
		}
	}
	if _, err := OpenToCheck(ctx, Options{Path: filepath.Join(none, "runnel.db")}); err == nil {
		t.Error("opened")
	}
	if left, _ := os.ReadDir(none); len(left) != 0 {
		t.Errorf("made %v", left)
	}
}
