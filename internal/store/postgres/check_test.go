package postgres

import (
	"bytes"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
)

// A look changes nothing, and refuses what is no fleet's.
func TestOpenToCheck(t *testing.T) {
	ctx := t.Context()
	server := pgtest.Start(t, false)
	url := server.URL(server.Database(t))
	if _, err := OpenToCheck(ctx, Options{URL: url, Secret: testSecret}); fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "holds no fleet") {
		t.Error(err)
	}
	if sealed, err := Sealed(ctx, url); sealed || err != nil {
		t.Errorf("a look made tables: %v %v", sealed, err)
	}
	openAt(t, url).Close()
	s, err := OpenToCheck(ctx, Options{URL: url, Secret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.AddDevice(ctx, fleet.Device{ID: "x"}, nil, time.Now()); err == nil {
		t.Error("it took a write")
	}
	if found, err := s.Check(ctx); len(found) > 0 || err != nil {
		t.Errorf("%v %v", found, err)
	}
}

// Damage on the database's disk is named by its table, and not taken for an error of the look.
func TestCheckFindsDamage(t *testing.T) {
	ctx := t.Context()
	server := pgtest.Start(t, false)
	name := server.Database(t)
	url := server.URL(name)
	s := openAt(t, url)
	for i := range 200 {
		if err := s.AddDevice(ctx, fleet.Device{ID: fmt.Sprint("pump-", i)}, nil, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	// What is on the disk is all there is: no log brings the page back.
	server.Exec(t, name, "CHECKPOINT")
	file := fileOf(t, url, "devices")
	server.Kill(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	copy(b, bytes.Repeat([]byte{0xa5}, 64)) // the first page's head
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(b[:64], 0); err != nil {
		t.Fatal(err)
	}
	server.Restart(t)
	if s, err = OpenToCheck(ctx, Options{URL: url, Secret: testSecret}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	found, err := s.Check(ctx)
	if err != nil || len(found) != 1 || !strings.Contains(found[0].Error(), "table devices can't be read") || found[0].Hint == "" {
		t.Errorf("%v %v", found, err)
	}
}

// fileOf is where the database keeps a table.
func fileOf(t *testing.T, url, table string) string {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var dir, path string
	if err := db.QueryRow("SELECT current_setting('data_directory'), pg_relation_filepath($1)", table).Scan(&dir, &path); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, path)
}
