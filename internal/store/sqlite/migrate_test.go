package sqlite

import (
	"database/sql"
	"io/fs"
	"path/filepath"
	"testing"

	"github.com/pressly/goose/v3"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// upTo makes the file of an older program.
func upTo(t *testing.T, dir string, version int64, statements ...string) {
	t.Helper()
	path := filepath.Join(dir, "runnel.db")
	db, err := sql.Open("sqlite", dsn(path))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	files, err := fs.Sub(migrationFiles, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	p, err := goose.NewProvider(goose.DialectSQLite3, db, files, goose.WithDisableGlobalRegistry(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.UpTo(t.Context(), version); err != nil {
		t.Fatal(err)
	}
	for _, s := range append(statements, "PRAGMA application_id = 1380863564") {
		if _, err := db.Exec(s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// What the first schema held is there in the newest: releases with their numbers,
// deployments, keys and who has spoken v1.
func TestMigrateNative(t *testing.T) {
	if applicationID != 1380863564 {
		t.Fatal("the file would be another program's")
	}
	dir := t.TempDir()
	const digest = "x'00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff'"
	upTo(t, dir, 1,
		"INSERT INTO releases (id, product, version, digest, size, chip, project, app_version, idf_version, chunk_size, state, published_at, withdrawn_at) VALUES (3, 'p', '1.0', "+digest+", 5000, 'ESP32', 'x', 'y', 'z', 1024, 'published', 1000000, 0), (7, 'p', '2.0', "+digest+", 5000, 'ESP32', 'x', 'y', 'z', 1024, 'withdrawn', 2000000, 5)",
		"INSERT INTO devices (id, product, added_at, signed, nonce) VALUES ('a', 'p', 1, 1, 5), ('b', 'p', 1, 0, 0)",
		"INSERT INTO deployments VALUES ('a', 3, 'confirmed', 5, 5, 1, 'success', 'why', 1, 10, 20), ('a', 7, 'reverted', 5, 5, 1, 'failed', 'why not', 1, 30, 40)",
		"INSERT INTO keys (id, owner_kind, owner, purpose, state, sealed, created_at) VALUES ('0011223344556677', 'device', 'a', 'v1', 'active', x'00', 1)")
	s := openAt(t, dir)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	list, err := s.ListReleases(ctx, "p")
	if err != nil || len(list) != 2 || list[0].ID != 7 || list[0].State != fleet.ReleaseWithdrawn || list[1].ID != 3 || list[1].Signed() || list[1].Image.Size != 5000 {
		t.Errorf("%+v %v", list, err)
	}
	dep, err := s.Deployment(ctx, "a")
	if err != nil || dep.ReleaseID != 7 || dep.Version != "2.0" || dep.Reason != "why not" || !dep.Proven {
		t.Errorf("%+v %v", dep, err)
	}
	if dep, err := s.DeploymentOf(ctx, "a", 3); err != nil || dep.State != fleet.StateConfirmed || dep.BootStatus != "success" {
		t.Errorf("%+v %v", dep, err)
	}
	if d, err := s.Device(ctx, "a"); err != nil || d.StrongestWire != fleet.WireV1 || d.Assurance != fleet.AssuranceOwn || d.Nonce != 5 {
		t.Errorf("%+v %v", d, err)
	}
	if d, err := s.Device(ctx, "b"); err != nil || d.StrongestWire != fleet.WireNone {
		t.Errorf("%+v %v", d, err)
	}
	// Numbers of releases are never used again, and deployments still refer to them.
	r, _, err := s.Publish(ctx, fleet.Release{Product: "p", Version: "3.0", ChunkSize: 1024, Image: fleet.Image{Size: 1}}, t0)
	if err != nil || r.ID != 8 {
		t.Errorf("%+v %v", r, err)
	}
	var broken int
	if err := s.readers.db.QueryRow("SELECT count(*) FROM pragma_foreign_key_check").Scan(&broken); err != nil || broken != 0 {
		t.Errorf("%d broken references, %v", broken, err)
	}
	if _, _, err := s.Publish(ctx, fleet.Release{Product: "p", Version: "1.0", ChunkSize: 1024, Image: fleet.Image{Size: 1}}, t0); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Error(err)
	}
}

// What was signed stays in the table, whatever a mistake tries.
func TestManifestsStay(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	if _, err := s.AddKeyList(ctx, fleet.KeyList{Version: 1, Generation: 1, Envelope: []byte("list")}, 0, nil, t0); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"DELETE FROM manifests", "UPDATE manifests SET envelope = x'00'"} {
		err := s.w.Do(ctx, func(t *tx) error {
			_, err := t.exec(text)
			return err
		})
		if err == nil {
			t.Errorf("%s: done", text)
		}
	}
	var n int
	if err := s.readers.row(ctx, "SELECT count(*) FROM manifests WHERE kind = 'keylist' AND sequence = 1 AND length(digest) = 32").Scan(&n); err != nil || n != 1 {
		t.Errorf("%d rows, %v", n, err)
	}
}
