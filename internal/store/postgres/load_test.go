package postgres

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/postgres/pgtest"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

// here are columns of PostgreSQL alone: what one server keeps in memory.
var here = []string{"devices.v1_offer", "devices.v1_offer_generation"}

// A move takes every column of every table: the lists are those of both databases.
func TestTablesAreWhole(t *testing.T) {
	ctx := t.Context()
	var listed []string
	for _, table := range sqlstore.Tables {
		for _, c := range table.Columns {
			listed = append(listed, table.Name+"."+c)
		}
	}
	slices.Sort(listed)
	url := pgtest.Start(t, false).Schema(t)
	s := openAt(t, url)
	defer s.Close()
	rows, err := s.durable.sql.QueryContext(ctx, "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name <> 'goose_db_version'")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var ours []string
	for rows.Next() {
		var c string
		if err := rows.Scan(&c); err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(here, c) {
			ours = append(ours, c)
		}
	}
	slices.Sort(ours)
	if err := rows.Err(); err != nil || !slices.Equal(ours, listed) {
		t.Errorf("PostgreSQL has\n%v, listed are\n%v: %v", ours, listed, err)
	}
	lite := openSQLite(t)
	for _, table := range sqlstore.Tables {
		err := lite.Rows(ctx, sqlstore.Table{Name: "pragma_table_info('" + table.Name + "')", Columns: []string{"name"}, Key: "name"}, func(row []any) error {
			c := table.Name + "." + row[0].(string)
			if i := slices.Index(listed, c); i >= 0 {
				listed = slices.Delete(listed, i, i+1)
			} else {
				t.Errorf("SQLite has %s, which is not listed", c)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(listed) != 0 {
		t.Errorf("SQLite does not have %v", listed)
	}
}

func openSQLite(t *testing.T) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "runnel.db"), Secret: testSecret})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// filled has something in it of every kind: empty texts and bytes, NULL, numbers of 63 bits.
func filled(t *testing.T) *sqlite.Store {
	t.Helper()
	ctx, now := t.Context(), time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s := openSQLite(t)
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range 40 {
		ok(s.AddNativeDevice(ctx, fleet.Device{ID: fmt.Sprint("d", i), Product: "p"}, fleet.Key{byte(i)}, nil, now))
	}
	ok(s.AddDevice(ctx, fleet.Device{ID: "old-1"}, &fleet.Key{7}, now))
	ok(s.SetProductKey(ctx, "q", fleet.Key{8}, now))
	ok(s.SetProductKey(ctx, "q", fleet.Key{9}, now)) // the one before is empty now
	r, _, err := s.Publish(ctx, fleet.Release{Product: "p", Version: "1.0", ChunkSize: 1024, Image: fleet.Image{Size: 5000}}, now)
	ok(err)
	n := 3
	ok(s.Report(ctx, "old-1", &r, fleet.Report{ChunkReceived: &n}, true, 1<<62, now))
	phases, err := fleet.ParsePhases("1,100%", fleet.Phase{Success: 0.8, Fail: 0.2})
	ok(err)
	c := fleet.Course{Phases: phases}
	c.Fill()
	_, err = s.AddStreamKey(ctx, fleet.Key{10}, false, now)
	ok(err)
	_, err = s.BeginDerivation(ctx, fleet.Derivation{DerivationName: fleet.DerivationName{Release: r.ID, Base: fleet.Digest{1}, Profile: 1}, Lease: now}, "x", now)
	ok(err)
	_, err = s.CreateRollout(ctx, fleet.Rollout{Product: "p", ReleaseID: r.ID, Course: c}, now)
	ok(err)
	return s
}

// A store that was moved holds the same, and goes on with its numbers; one that holds
// anything takes no other.
func TestLoad(t *testing.T) {
	ctx := t.Context()
	from := filled(t)
	url := pgtest.Start(t, false).Schema(t)
	to := openAt(t, url)
	defer to.Close()
	calls := 0
	sums, err := to.Load(ctx, from.Store, func(string, int64) { calls++ })
	if err != nil || len(sums) != len(sqlstore.Tables) || calls < 40 {
		t.Fatalf("%d tables, %d calls, %v", len(sums), calls, err)
	}
	for i, table := range sqlstore.Tables {
		for name, s := range map[string]*sqlstore.Store{"there": from.Store, "here": to.Store} {
			sum := sqlstore.NewSum(table)
			if err := s.Rows(ctx, table, sum.Add); err != nil || sum.Rows != sums[i].Rows || sum.Digest() != sums[i].Digest() {
				t.Errorf("%s %s: %d rows, %s; moved were %d, %s: %v", table.Name, name, sum.Rows, sum.Digest(), sums[i].Rows, sums[i].Digest(), err)
			}
		}
	}
	d, err := to.Device(ctx, "old-1")
	if err != nil || d.Nonce != 1<<62 {
		t.Errorf("%+v %v", d, err)
	}
	if key, _, err := to.DeviceKey(ctx, "old-1"); err != nil || key != (fleet.Key{7}) {
		t.Errorf("%v", err)
	}
	if key, err := to.StreamKey(ctx); err != nil || key != (fleet.Key{10}) {
		t.Errorf("%v", err)
	}
	r, _, err := to.Publish(ctx, fleet.Release{Product: "p", Version: "2.0", ChunkSize: 1024, Image: fleet.Image{Size: 5000}}, time.Now())
	if err != nil || r.ID != 2 {
		t.Errorf("%+v %v", r, err)
	}
	if _, err := to.Load(ctx, from.Store, func(string, int64) {}); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Error(err)
	}
}

// Where anything goes wrong in between, nothing is there.
func TestLoadLeavesNothing(t *testing.T) {
	from := filled(t)
	server := pgtest.Start(t, false)
	url := server.Schema(t)
	to := openAt(t, url)
	defer to.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := to.Load(ctx, from.Store, func(table string, _ int64) {
		if table == "events" {
			cancel()
		}
	})
	if err == nil {
		t.Error("moved")
	}
	// What the new database changes on its way in is found.
	if _, err := to.durable.sql.Exec("CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.detail = NEW.detail || '.'; RETURN NEW; END $$"); err != nil {
		t.Fatal(err)
	}
	if _, err := to.durable.sql.Exec("CREATE TRIGGER spoil BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION spoil()"); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Load(t.Context(), from.Store, func(string, int64) {}); err == nil || !strings.Contains(err.Error(), "table events has") {
		t.Error(err)
	}
	list, err := to.ListDevices(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("%d devices, %v", len(list), err)
	}
}
