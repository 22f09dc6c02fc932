package sqlite

import (
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"fmt"
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
	"github.com/runnel-fota/runnel/release"
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
	p, err := migrations(db)
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
			_, err := t.Exec(text)
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

// Signed releases of before come up with the slots of their manifests, and take
// builds beside them.
func TestMigrateSlots(t *testing.T) {
	dir := t.TempDir()
	slot := uint8(1)
	seed := sha256.Sum256([]byte("runnel test key, known to everybody: release"))
	var statements []string
	envelopes := map[int64][]byte{}
	for id, of := range map[int64]*uint8{3: nil, 4: &slot} {
		m := &release.Manifest{Product: "p", Hardware: [][]byte{[]byte("r2")}, Version: fmt.Sprint(id), Epoch: 1, Sequence: uint32(id), Confirm: release.Confirm{Seconds: 60},
			Image: release.Image{Format: manifest.FormatRaw, Size: 5000, Digest: release.Hash{byte(id)}, Slot: of, Streams: []release.Raw{{Chunk: 1024}}}}
		p, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if envelopes[id], err = release.Sign(ctx, manifest.KindManifest, p, release.NewKeySigner(ed25519.NewKeyFromSeed(seed[:]))); err != nil {
			t.Fatal(err)
		}
	}
	envelopes[5] = []byte("no manifest")
	for id, e := range envelopes {
		sum := sha256.Sum256(e)
		statements = append(statements,
			fmt.Sprintf("INSERT INTO manifests (digest, kind, envelope, product, version, epoch, sequence, security_version, image_digest, added_at) VALUES (x'%x', 'manifest', x'%x', 'p', '%d', 1, %d, 0, x'', 1)", sum, e, id, id),
			fmt.Sprintf(`INSERT INTO releases (id, product, version, digest, size, chip, project, app_version, idf_version, chunk_size, state, published_at, epoch, sequence, hardware, manifest_digest)
 VALUES (%d, 'p', '%d', x'%02x%062x', 5000, '', '', '', '', 1024, 'published', %d000000, 1, %d, 'r2', x'%x')`, id, id, id, 0, id, id, sum))
	}
	statements = append(statements, "INSERT INTO releases (id, product, version, digest, size, chip, project, app_version, idf_version, chunk_size, state, published_at) VALUES (6, 'q', '1', zeroblob(32), 1, '', '', '', '', 1024, 'withdrawn', 6000000)",
		"INSERT INTO devices (id, product, added_at) VALUES ('a', 'p', 1)",
		"INSERT INTO deployments VALUES ('a', 4, 'confirmed', 5, 5, 1, '', '', 1, 10, 20)")
	upTo(t, dir, 3, statements...)
	s := openAt(t, dir)
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	list, err := s.ListReleases(ctx, "")
	if err != nil || len(list) != 4 {
		t.Fatalf("%+v %v", list, err)
	}
	for _, r := range list {
		if r.HasSlot != (r.ID == 4) || r.HasSlot && r.Slot != 1 || r.Version != fmt.Sprint(r.ID) && r.ID != 6 || r.ID != 6 && r.ManifestDigest != sha256.Sum256(envelopes[r.ID]) {
			t.Errorf("%+v", r)
		}
	}
	if d, err := s.Device(ctx, "a"); err != nil || d.Slots != 0 {
		t.Errorf("%+v %v", d, err)
	}
	if p, err := s.Deployment(ctx, "a"); err != nil || p.ReleaseID != 4 || p.State != fleet.StateConfirmed {
		t.Errorf("%+v %v", p, err)
	}
	build := fleet.Release{Product: "p", Version: "4", ChunkSize: 1024, Epoch: 1, Sequence: 4, Hardware: "r2", HasSlot: true, Image: fleet.Image{Size: 5000, Digest: fleet.Digest{9}}}
	streams := []fleet.Stream{{Digest: fleet.Digest{1}, Kind: fleet.StreamRaw, Chunk: 1024, Length: 5000}}
	if r, created, err := s.PublishSigned(ctx, build, []byte("the other slot's"), streams, 0, t0); err != nil || !created || r.ID != 7 {
		t.Errorf("%+v %v %v", r, created, err)
	}
	build.Sequence, build.Version = 3, "3"
	if _, _, err := s.PublishSigned(ctx, build, []byte("beside one for any"), streams, 0, t0); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Error(err)
	}
	// What the program does not refuse, the table does.
	err = s.w.Do(ctx, func(t *tx) error {
		_, err := t.Exec("UPDATE releases SET slot = 1 WHERE id = 7")
		return err
	})
	if err == nil {
		t.Error("two builds are for one slot")
	}
	// An older program refuses the file.
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, "runnel.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if have, want, err := versions(ctx, db); err != nil || have != 9 || want != 9 {
		t.Errorf("schema %d of %d, %v", have, want, err)
	}
}

// The table of devices is made anew with all that it held, and what refers to it does on.
func TestMigrateDeviceRows(t *testing.T) {
	dir := t.TempDir()
	upTo(t, dir, 8, "INSERT INTO devices (id, product, added_at) VALUES ('b', 'p', 1), ('a', 'p', 2)",
		"INSERT INTO native_reports (device, boot, number, content) VALUES ('a', 1, 1, x'00')")
	before := deviceColumnsAt(t, dir, func(db *sql.DB, columns []string) {
		// A value of its own in each column, so that no two are mixed up.
		for i, c := range columns {
			text := fmt.Sprint(i+1) + "000000"
			if c == "strongest_wire" {
				text = "mac-only"
			}
			if c != "id" {
				if _, err := db.Exec("UPDATE devices SET "+c+" = ? WHERE id = 'a'", text); err != nil {
					t.Fatalf("%s: %v", c, err)
				}
			}
		}
	})
	var told []int64
	o := Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret, Migrating: func(from, to int64) { told = append(told, from, to) }}
	for range 2 {
		s, err := Open(ctx, o)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 2 || told[0] != 8 || told[1] < 9 {
		t.Errorf("told %v", told)
	}
	after := deviceColumnsAt(t, dir, func(db *sql.DB, _ []string) {
		var broken, left int
		if err := db.QueryRow("SELECT (SELECT count(*) FROM pragma_foreign_key_check), (SELECT count(*) FROM sqlite_schema WHERE name LIKE '%_new')").Scan(&broken, &left); err != nil || broken != 0 || left != 0 {
			t.Errorf("%d broken references, %d tables left, %v", broken, left, err)
		}
		if _, err := db.Exec("INSERT INTO native_reports (device, boot, number, content) VALUES ('c', 1, 1, x'00')"); err == nil {
			t.Error("a report of nobody was taken")
		}
	})
	if len(before) != 2*33 || !maps.Equal(before, after) {
		t.Errorf("%d values before: %v\nafter: %v", len(before), before, after)
	}
}

// deviceColumnsAt is every value of every device, by device and column, after change.
func deviceColumnsAt(t *testing.T, dir string, change func(db *sql.DB, columns []string)) map[string]string {
	t.Helper()
	db, err := sql.Open("sqlite", dsn(filepath.Join(dir, "runnel.db")))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	columns, err := sqlstore.Collect(func(s sqlstore.Scanner) (c string, err error) { return c, s.Scan(&c) })(db.Query("SELECT name FROM pragma_table_info('devices')"))
	if err != nil {
		t.Fatal(err)
	}
	change(db, columns)
	out := map[string]string{}
	for _, c := range columns {
		for _, id := range []string{"a", "b"} {
			var v string
			if err := db.QueryRow("SELECT "+c+" FROM devices WHERE id = ?", id).Scan(&v); err != nil {
				t.Fatal(err)
			}
			out[id+" "+c] = v
		}
	}
	return out
}

// What a poll looks up goes by indices, however many deployments there are.
func TestPollPlan(t *testing.T) {
	s := openAt(t, t.TempDir())
	defer s.Close()
	for _, q := range sqlstore.PollParts(dialect) {
		rows, err := s.readers.db.Query("EXPLAIN QUERY PLAN SELECT ?1 AS a, ?2 AS b, ?3 AS c, "+q, "a", "[1]", "[1]")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for rows.Next() {
			var id, parent, unused int
			var detail string
			if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
				t.Fatal(err)
			}
			n++
			// Of the ids that were asked for, and of the clock's one row, all are read.
			if strings.HasPrefix(detail, "SCAN") && !strings.HasPrefix(detail, "SCAN j VIRTUAL TABLE") && detail != "SCAN CONSTANT ROW" && detail != "SCAN fleet_clock" && detail != "SCAN w" {
				t.Error(detail)
			}
		}
		if err := rows.Err(); err != nil || n < 4 {
			t.Errorf("%d lines, %v", n, err)
		}
		rows.Close()
	}
}
