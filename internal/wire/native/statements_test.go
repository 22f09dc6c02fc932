package native

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/opentest"
)

// statements are how many f runs.
func (w *rig) statements(f func()) int64 {
	before := w.store.Statements()
	f()
	return w.store.Statements() - before
}

// What each call of a device costs in SQL statements, through the handlers and on the real
// store. docs/operations.md has the table.
func TestStatements(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	b.offered(r)
	w.flush()
	// On PostgreSQL BEGIN and COMMIT are not counted, and nothing is written behind.
	want := func(what string, want, postgres int64, f func()) {
		t.Helper()
		if opentest.Postgres() {
			want = postgres
		}
		if n := w.statements(f); n != want {
			t.Errorf("%s: %d statements, not %d", what, n, want)
		}
	}
	want("an idle poll", 1, 1, func() { b.offered(r) })
	want("the first write behind: BEGIN, the device, COMMIT", 3, 0, w.flush)
	want("nothing to write behind", 0, 0, w.flush)

	// A stream: the index is asked once for all who fetch it.
	streams, err := w.store.Streams(t.Context(), r.ID)
	w.ok(nil, err)
	mux := http.NewServeMux()
	NewObjects(ObjectsConfig{Files: fileOf(t, streams[0]), Index: w.store}).Register(mux)
	get := func(ranged string) {
		t.Helper()
		req := httptest.NewRequest("GET", "/r1/streams/"+streams[0].Digest.String(), nil)
		status := http.StatusOK
		if ranged != "" {
			req.Header.Set("Range", ranged)
			status = http.StatusPartialContent
		}
		rec := httptest.NewRecorder()
		if mux.ServeHTTP(rec, req); rec.Code != status {
			t.Fatal(rec.Code, rec.Body)
		}
	}
	want("a stream for the first time", 1, 1, func() { get("") })
	want("a stream", 0, 0, func() { get("") })
	want("a part of a stream", 0, 0, func() { get("bytes=10-19") })

	// A report is one transaction of its own here; BEGIN and COMMIT are shared by those that
	// come at once.
	report := func(s core.State, reason uint16) func() { return func() { b.report(r, s, reason) } }
	want("the first report of a deployment", reportStatements+1, 8, report(core.StateDownloading, 0))
	want("a report of progress", reportStatements, 7, report(core.StateDownloading, 0))
	want("a report that the timeline has a line for", reportStatements+1, 8, report(core.StateConfirmed, 0))
	again := b.report(r, core.StateConfirmed, 0)
	want("a report that is sent again", 4, 2, func() {
		again.Nonce++
		b.poll.Nonce++
		b.acked(again, b.send(again))
	})
}

// reportStatements of one report: BEGIN; the device; does the key live and is it known; the
// report's name; the release; the deployment; the device and the deployment stored;
// COMMIT. Each eighth at most has one more, which forgets old names.
const reportStatements = 9

// oneFile is a folder of streams with one file.
type oneFile string

func (f oneFile) Open(context.Context, fleet.Digest) (*os.File, error) { return os.Open(string(f)) }

func fileOf(t *testing.T, s fleet.Stream) oneFile {
	t.Helper()
	path := filepath.Join(t.TempDir(), "stream")
	if err := os.WriteFile(path, make([]byte, s.Length), 0o600); err != nil {
		t.Fatal(err)
	}
	return oneFile(path)
}
