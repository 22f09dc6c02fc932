package sqlite

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// refused wants Open to fail with a message that a person can act on.
func refused(t *testing.T, dir, part string) {
	t.Helper()
	s, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret})
	if err == nil {
		s.Close()
		t.Fatal("opened")
	}
	var e *fleet.Error
	if !errors.As(err, &e) || e.Code != fleet.CodeInvalid || e.Hint == "" || !strings.Contains(e.Message, part) {
		t.Errorf("%v", err)
	}
}

// alter runs SQL in a closed store's file.
func alter(t *testing.T, dir string, statements ...string) {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(dir, "runnel.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
}

func filled(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s := openAt(t, dir)
	for i := range 200 {
		if err := s.AddDevice(ctx, fleet.Device{ID: fmt.Sprint("d", i)}, &fleet.Key{byte(i)}, t0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPragmas(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	for pragma, want := range map[string]string{
		"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "busy_timeout": "5000", "trusted_schema": "0", "application_id": "1380863564",
	} {
		var got string
		err := s.w.Do(ctx, func(t *tx) error { return t.Row("PRAGMA " + pragma).Scan(&got) })
		if err != nil || got != want {
			t.Errorf("%s is %s, not %s: %v", pragma, got, want, err)
		}
	}
	if _, err := s.readers.db.Exec("DELETE FROM devices"); err == nil {
		t.Error("a reader wrote")
	}
}

func TestFileMode(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, dir)
	defer s.Close()
	files, err := filepath.Glob(filepath.Join(dir, "runnel.db*"))
	if err != nil || len(files) != 3 {
		t.Errorf("%v %v", files, err)
	}
	for _, f := range files {
		if st, err := os.Stat(f); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", f, st.Mode(), err)
		}
	}
}

func TestCloseFoldsTheLog(t *testing.T) {
	dir := filled(t)
	files, _ := os.ReadDir(dir)
	if len(files) != 1 {
		t.Errorf("%v", files)
	}
}

// Characters that mean something in a URI are part of the folder's name.
func TestOddPaths(t *testing.T) {
	base := t.TempDir()
	for _, name := range []string{"with space", "100%", "a%20b", "q?mode=ro", "h#1", "ünï", "a&b=c", "_pragma=synchronous(0)"} {
		dir := filepath.Join(base, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		s := openAt(t, dir)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if st, err := os.Stat(filepath.Join(dir, "runnel.db")); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", name, err)
		}
	}
	if found, _ := os.ReadDir(base); len(found) != 8 {
		t.Errorf("%v", found)
	}
	t.Chdir(base)
	s, err := Open(ctx, Options{Path: "runnel.db", Secret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, err := os.Stat(filepath.Join(base, "runnel.db")); err != nil {
		t.Error(err)
	}
}

func TestRefusesANewerSchema(t *testing.T) {
	dir := filled(t)
	alter(t, dir, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, 1)")
	refused(t, dir, "newer version")
}

func TestRefusesAnotherProgramsDatabase(t *testing.T) {
	dir := t.TempDir()
	alter(t, dir, "CREATE TABLE bookmarks (url TEXT)")
	before, _ := os.ReadFile(filepath.Join(dir, "runnel.db"))
	refused(t, dir, "another program")
	alter(t, dir, "SELECT 1")
	after, _ := os.ReadFile(filepath.Join(dir, "runnel.db"))
	// Opening switches to WAL, which two bytes of the header say; its content stays.
	if len(before) != len(after) || !bytes.Equal(before[100:], after[100:]) {
		t.Error("it was altered")
	}
	dir = t.TempDir()
	alter(t, dir, "PRAGMA application_id = 77")
	refused(t, dir, "another program")
}

func TestRefusesAnotherSecret(t *testing.T) {
	dir := filled(t)
	_, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: [32]byte{9}})
	if fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "secret.key") {
		t.Errorf("%v", err)
	}
	openAt(t, dir).Close() // and does no harm
}

// Damage at any page is found when the file is opened, with a clear message.
func TestRefusesDamage(t *testing.T) {
	dir := filled(t)
	path := filepath.Join(dir, "runnel.db")
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	// The tables' own pages: garbage over a b-tree page's header and cells.
	found := 0
	for at := page; at+page <= len(whole); at += page {
		bad := bytes.Clone(whole)
		for i := range page {
			bad[at+i] = byte(i*7 + 13)
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Open(ctx, Options{Path: path, Secret: testSecret})
		if err == nil {
			s.Close()
			t.Errorf("page %d of %d: opened", at/page, len(whole)/page)
			continue
		}
		var e *fleet.Error
		if !errors.As(err, &e) || e.Code != fleet.CodeInvalid || e.Hint == "" || !strings.Contains(e.Message, "damaged") {
			t.Errorf("page %d: %v", at/page, err)
		}
		found++
	}
	if found < 10 {
		t.Errorf("only %d pages tried", found)
	}
	for name, bad := range map[string][]byte{
		"is no SQLite database": bytes.Repeat([]byte("x"), 8192),
		"":                      whole[:len(whole)/2/page*page+100], // cut off within a page
	} {
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		refused(t, dir, name)
	}
}

func TestUnusablePath(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "runnel.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db")}); fleet.CodeOf(err) != fleet.CodeInvalid {
		t.Errorf("%v", err)
	}
	if _, err := Open(ctx, Options{Path: filepath.Join(dir, "no", "such", "runnel.db")}); fleet.CodeOf(err) != fleet.CodeInvalid {
		t.Errorf("%v", err)
	}
}

// A crash between the making of the file and the first migration.
// A file that is none of ours is refused and left alone, also where a journal lies
// beside it: that is SQLite's to judge.
func TestForeignFileWithJournal(t *testing.T) {
	for _, journal := range []string{"", "no journal either", strings.Repeat("\x00", 4096)} {
		dir := t.TempDir()
		path := filepath.Join(dir, "runnel.db")
		foreign := strings.Repeat("holiday photographs ", 500)
		for name, text := range map[string]string{path: foreign, path + "-journal": journal} {
			if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want := "is no SQLite database"
		if journal != "" {
			want = "the database is damaged"
		}
		refused(t, dir, want)
		if got, err := os.ReadFile(path); err != nil || string(got) != foreign {
			t.Errorf("journal %.10q: the file was changed, %v", journal, err)
		}
	}
}

func TestOpensWhatACrashLeft(t *testing.T) {
	for _, left := range [][]string{nil, {fmt.Sprintf("PRAGMA application_id = %d", applicationID)},
		{fmt.Sprintf("PRAGMA application_id = %d", applicationID), `CREATE TABLE goose_db_version (id INTEGER PRIMARY KEY AUTOINCREMENT,
 version_id INTEGER NOT NULL, is_applied INTEGER NOT NULL, tstamp TIMESTAMP DEFAULT (datetime('now')))`, "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1)"}} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "runnel.db"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		alter(t, dir, left...)
		s := openAt(t, dir)
		if _, err := s.ListReleases(ctx, ""); err != nil {
			t.Error(err)
		}
		s.Close()
	}
}
