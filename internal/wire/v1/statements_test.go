package v1_test

import (
	"fmt"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/opentest"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// What each call of a device costs in SQL statements, through the handlers and on the real
// store. docs/operations.md has the table.
func TestStatements(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.Rollouts = c.Devices.(v1.Rollouts) })
	w.publish("1.0", testImage(4096), 1024)
	nonce := 0
	call := func(method, path, body, part string) func() {
		return func() {
			t.Helper()
			nonce++
			w.want(w.do(method, path, body, signed("dev-1", testKey, path, fmt.Sprint(nonce), w.unix())...), 200, part)
		}
	}
	poll := call("GET", v1.PathManifest, "", "")
	chunk := func(n int) func() { return call("GET", fmt.Sprint(v1.PathChunk, "?chunk_number=", n), "", `"mac"`) }
	report := func(status string) func() {
		return call("POST", v1.PathStatus, `{"fota_status":`+status+`}`, "success")
	}
	// On PostgreSQL BEGIN and COMMIT are not counted, and nothing is written behind.
	want := func(what string, want, postgres int64, f func()) {
		t.Helper()
		if opentest.Postgres() {
			want = postgres
		}
		before := w.store.Statements()
		f()
		if n := w.store.Statements() - before; n != want {
			t.Errorf("%s: %d statements, not %d", what, n, want)
		}
	}
	flush := func() {
		if err := w.wire.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	poll() // the device and the catalogue come into memory
	flush()
	want("a poll with an offer", 1, 2, poll)
	want("a chunk", 0, 1, chunk(0))
	want("another", 0, 1, chunk(3))
	want("the write behind: BEGIN, the device, COMMIT", 3, 0, flush)
	want("nothing to write behind", 0, 0, flush)
	want("the first report of a deployment", reportStatements, 8, report(`{"chunk_received":1,"total_chunks":4}`))
	want("a report of progress", reportStatements, 8, report(`{"chunk_received":2,"total_chunks":4}`))
	want("a report that the timeline has a line for", reportStatements+1, 9, report(`{"chunk_received":4,"total_chunks":4,"verified":true}`))
	report(`{"boot_status":"success","new_version":"1.0"}`)()
	want("a poll with nothing", 1, 3, poll)
	want("an order to go back that is not there", 1, 2, call("GET", v1.PathRollback, "", ""))
	if d, err := w.store.Deployment(t.Context(), "dev-1"); err != nil || d.State != fleet.StateConfirmed {
		t.Errorf("%+v %v", d, err)
	}
}

// reportStatements of one report: BEGIN; the device; the release on offer and its deployment; the
// latest deployment; the device, the deployment and an event stored; COMMIT. Where another release is
// on offer than the device had last, two more.
const reportStatements = 9
