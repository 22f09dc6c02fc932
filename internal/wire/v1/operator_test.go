package v1_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// The upload's errors, word for word where the original has words, and nothing
// published by any of them.
func TestUploadRefuses(t *testing.T) {
	image := testImage(3000)
	sum := sha256.Sum256(image)
	good := func() map[string]any {
		return map[string]any{"version": "7", "size": len(image), "hash": hex.EncodeToString(sum[:]), "firmware_data": base64.StdEncoding.EncodeToString(image)}
	}
	with := func(name string, value any) string {
		m := good()
		if m[name] = value; value == nil {
			delete(m, name)
		}
		b, _ := json.Marshal(m)
		return string(b)
	}
	const missing = `{"error":"Missing required fields","code":"invalid"}`
	w := newWorld(t, func(c *v1.Config) { c.MaxImage = 4096 })
	auth := []string{"Authorization", "Bearer " + w.token}
	for _, c := range []struct {
		name, body string
		status     int
		want       string
	}{
		{"no version", with("version", nil), 400, missing},
		{"no size", with("size", nil), 400, missing},
		{"no hash", with("hash", nil), 400, missing},
		{"no data", with("firmware_data", nil), 400, missing},
		{"empty data", with("firmware_data", ""), 400, missing},
		{"size 0", with("size", 0), 400, missing},
		{"nothing", "{}", 400, missing},
		{"not base64", with("firmware_data", "!!!"), 400, `{"error":"Invalid base64: illegal base64 data at input byte 0","code":"invalid"}`},
		{"base64 not padded", with("firmware_data", "QQ"), 400, `{"error":"Invalid base64: illegal base64 data at input byte 0","code":"invalid"}`},
		{"another hash", with("hash", strings.Repeat("0", 64)), 400, `{"error":"Hash mismatch","code":"invalid"}`},
		{"no hash at all", with("hash", "x"), 400, `{"error":"Hash mismatch","code":"invalid"}`},
		{"another size", with("size", 2999), 400, `{"error":"Size mismatch: 2999 bytes announced, 3000 sent","code":"invalid"}`},
		{"size in quotes", with("size", "3000"), 400, `{"error":"Invalid JSON: size is a string","code":"invalid"}`},
		{"version a number", with("version", 7), 400, `{"error":"Invalid JSON: version is a number","code":"invalid"}`},
		{"no JSON", "firmware", 400, `{"error":"Invalid JSON","code":"invalid"}`},
		{"empty", "", 400, `{"error":"Invalid JSON","code":"invalid"}`},
		{"a list", "[]", 400, `{"error":"Invalid JSON","code":"invalid"}`},
		{"too long", strings.Repeat(" ", 20_000), 413, `{"error":"body is longer than 9560 bytes","code":"too_large"}`},
	} {
		if rec := w.do("POST", v1.PathUpload, c.body, auth...); rec.Code != c.status || rec.Body.String() != c.want {
			t.Errorf("%s: %d %s, want %d %s", c.name, rec.Code, rec.Body, c.status, c.want)
		}
	}
	// A body whose length is not announced is bounded as it comes.
	r := httptest.NewRequest("POST", v1.PathUpload, strings.NewReader(strings.Repeat(" ", 20_000)))
	r.ContentLength = -1
	r.Header.Set("Authorization", auth[1])
	rec := httptest.NewRecorder()
	w.mux.ServeHTTP(rec, r)
	w.want(rec, 413, "too_large")
	if list, err := w.store.ListReleases(t.Context(), ""); err != nil || len(list) != 0 {
		t.Errorf("published %+v, %v", list, err)
	}
	w.want(w.do("POST", v1.PathUpload, with("chunk_size", 512), auth...), 200, `"chunk_size":512,`)
	// The scheme's case does not matter.
	w.want(w.do("GET", v1.PathFleetStatus, "", "Authorization", "bearer "+w.token), 200, `"version":"7"`)
	w.want(w.do("GET", v1.PathFleetStatus, "", "Authorization", "Basic "+w.token), 401, "unauthenticated")
	w.want(w.do("GET", v1.PathFleetStatus, "", "Authorization", w.token), 401, "unauthenticated")
}

// A device that polled when there was nothing and asks for chunks without another
// poll, as a script does that uploads in between.
func TestChunksAfterAnEmptyPoll(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.SilentDevice = "dev-1" })
	w.want(w.do("GET", v1.PathManifest, ""), 200, "{}")
	w.want(w.do("GET", v1.PathChunk+"?chunk_number=0", ""), 404, `{"error":"Chunk not found","code":"not_found"}`)
	r := w.publish("1", testImage(2048), 1024)
	rec := w.do("GET", v1.PathChunk+"?chunk_number=0", "")
	w.want(rec, 200, `"size":1024`)
	if got := rec.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control is %q: the next release has the same URLs", got)
	}
	if _, err := w.store.Withdraw(t.Context(), r.ID, w.now()); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", v1.PathChunk+"?chunk_number=1", ""), 404, "not_found")
	w.want(w.do("GET", v1.PathManifest, ""), 200, "{}")
}

// Every event of the original, from an upload to a way back, and what the operator
// sees of it; and all of it again after a restart.
func TestEventsAndStatus(t *testing.T) {
	w := newWorld(t, nil)
	image := testImage(4096)
	sum := sha256.Sum256(image)
	b, _ := json.Marshal(map[string]any{"version": "1", "size": len(image), "hash": hex.EncodeToString(sum[:]), "firmware_data": base64.StdEncoding.EncodeToString(image)})
	auth := []string{"Authorization", "Bearer " + w.token}
	w.want(w.do("POST", v1.PathUpload, string(b), auth...), 200, "success")
	for _, id := range []string{"dev-2", "dev-3"} {
		w.add(id, testKey)
	}
	n := 0
	report := func(id, status string) {
		n++
		w.want(w.do("POST", v1.PathStatus, seal(testKey, fmt.Sprint(n), w.unix(), `{"fota_status":`+status+`}`), "Device-ID", id), 200, "success")
	}
	for _, s := range []string{`{"chunk_received":1,"total_chunks":4,"progress":25}`, `{"chunk_received":4,"total_chunks":4}`, `{"verified":true}`,
		`{"boot_status":"pending_reboot"}`, `{"boot_status":"success","new_version":"1","boot_count":1}`} {
		report("dev-1", s)
	}
	report("dev-2", `{"verified":false,"error":"SHA-256 differs"}`)
	for _, s := range []string{`{"verified":true}`, `{"boot_status":"pending_reboot"}`, `{"boot_status":"failed","error":"panic"}`} {
		report("dev-3", s)
	}
	w.want(w.do("POST", v1.PathOrderRollback, "", auth...), 200, `{"success":true,"message":"Rollback ordered for 3 devices","device_id":"all","reason":"ordered by an operator"}`)
	w.want(w.do("POST", v1.PathOrderRollback, `{"device_id":"dev-9"}`, auth...), 404, "not_found")
	w.want(w.do("POST", v1.PathOrderRollback, `{"device_id":5}`, auth...), 400, `device_id is a number`)
	check := func(when string) {
		var logs struct {
			Total int
			Logs  []struct{ Event, Details string }
		}
		if err := json.Unmarshal(w.do("GET", v1.PathLogs+"?limit=1000", "", auth...).Body.Bytes(), &logs); err != nil || logs.Total != len(logs.Logs) {
			t.Fatalf("%s: %v, %d of %d", when, err, len(logs.Logs), logs.Total)
		}
		var names []string
		for _, l := range logs.Logs {
			names = append(names, l.Event)
			if strings.Count(l.Details, "ordered by an operator") > 1 {
				t.Errorf("%s: %s", when, l.Details)
			}
		}
		for _, want := range []string{"firmware_uploaded", "firmware_hash_verified", "chunking_started", "chunk_received", "firmware_verified",
			"verification_failed", "boot_status", "fota_completed", "boot_failed", "rollback_triggered"} {
			if !slices.Contains(names, want) {
				t.Errorf("%s: no event %s", when, want)
			}
		}
		var status struct {
			Manifest     map[string]any `json:"manifest"`
			TotalChunks  int            `json:"total_chunks"`
			DeviceStatus map[string]struct {
				ChunkReceived int    `json:"chunk_received"`
				Verified      bool   `json:"verified"`
				BootStatus    string `json:"boot_status"`
				Error         string `json:"error"`
				LastUpdate    string `json:"last_update"`
			} `json:"device_status"`
		}
		if err := json.Unmarshal(w.do("GET", v1.PathFleetStatus, "", auth...).Body.Bytes(), &status); err != nil {
			t.Fatal(err)
		}
		d := status.DeviceStatus
		if status.Manifest["version"] != "1" || status.TotalChunks != 4 || len(d) != 3 || d["dev-1"].ChunkReceived != 4 || !d["dev-1"].Verified ||
			d["dev-1"].BootStatus != "success" || d["dev-1"].LastUpdate != "2026-11-23T18:54:47Z" || d["dev-2"].Error != "SHA-256 differs" || d["dev-3"].BootStatus != "failed" {
			t.Errorf("%s: status %+v", when, status)
		}
		w.want(w.do("GET", v1.PathFleetStatus+"?product=other", "", auth...), 200, `{"manifest":null,"total_chunks":0,"device_status":{}}`)
	}
	check("before")
	w.close()
	w.open(nil)
	check("after a restart")
	// The order too: it is told after the restart, and cleared by the report.
	flag := func() string {
		n++
		return w.do("GET", v1.PathRollback, "", signed("dev-1", testKey, v1.PathRollback, fmt.Sprint(n), w.unix())...).Body.String()
	}
	if got := flag(); !strings.Contains(got, `"rollback_required":true`) {
		t.Errorf("after a restart: %s", got)
	}
	report("dev-1", `{"rollback":true,"error":"as ordered"}`)
	w.advance(fleet.RollbackRepeat + time.Minute)
	if got := flag(); got != `{"rollback_required":false}` {
		t.Errorf("after the report: %s", got)
	}
}

// docs/security.md, the silent device: what is said in its name decides nothing once
// it has proven itself, and never what is offered.
func TestForgedReports(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.SilentDevice = "dev-1" })
	w.publish("1", testImage(4096), 1024)
	w.want(w.do("POST", v1.PathStatus, seal(testKey, "1", w.unix(), `{"fota_status":{"chunk_received":2}}`)), 200, "success")
	for _, s := range []string{`{"boot_status":"success","new_version":"1"}`, `{"rollback":true}`, `{"boot_status":"failed"}`, `{"chunk_received":4}`} {
		w.want(w.do("POST", v1.PathStatus, `{"fota_status":`+s+`}`), 200, "success")
	}
	dep, err := w.store.Deployment(t.Context(), "dev-1")
	if err != nil || dep.State != fleet.StateDownloading || dep.ChunksReceived != 2 || !dep.Proven {
		t.Errorf("deployment is %+v, %v", dep, err)
	}
	w.want(w.do("GET", v1.PathManifest, ""), 200, `"version":"1"`)
	// Its order to go back is not used up by who can't prove to be it.
	if _, err := w.wire.Orders().OrderRollback(t.Context(), "dev-1", "hot", w.now()); err != nil {
		t.Fatal(err)
	}
	w.want(w.do("GET", v1.PathRollback, ""), 200, `{"rollback_required":false}`)
	w.want(w.do("GET", v1.PathRollback, "", signed("dev-1", testKey, v1.PathRollback, "2", w.unix())...), 200, `"rollback_required":true`)
}

func FuzzChunkQuery(f *testing.F) {
	w := newWorld(f, func(c *v1.Config) { c.SilentDevice = "dev-1" })
	image := testImage(2500)
	w.publish("1", image, 1024)
	for _, q := range []string{"chunk_number=0", "chunk=2", "offset=1&size=9", "chunk_number=00", "chunk_number=1&chunk_number=2", "offset=-1", "size=5", "%zz",
		"offset=0&size=16385", "chunk_number=999999999999999", "offset=999999999999999&size=1", "chunk_number=%30", "chunk_number=1;chunk=2", ""} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		w.t = t
		r := httptest.NewRequest("GET", v1.PathChunk, nil)
		r.URL.RawQuery = query
		rec := httptest.NewRecorder()
		w.mux.ServeHTTP(rec, r)
		if rec.Code != 200 {
			if rec.Code != 400 && rec.Code != 404 {
				t.Errorf("%q: %d %s", query, rec.Code, rec.Body)
			}
			return
		}
		var c struct {
			Data []byte `json:"data"`
			Size int    `json:"size"`
		}
		if err := json.Unmarshal(rec.Body.Bytes(), &c); err != nil || len(c.Data) != c.Size || !bytes.Contains(image, c.Data) {
			t.Errorf("%q: %v, %d bytes, size %d", query, err, len(c.Data), c.Size)
		}
	})
}

// deadlines notes what an upload asks of its connection.
type deadlines struct {
	*httptest.ResponseRecorder
	read, write time.Time
}

func (d *deadlines) SetReadDeadline(t time.Time) error  { d.read = t; return nil }
func (d *deadlines) SetWriteDeadline(t time.Time) error { d.write = t; return nil }

// An upload over a slow line has time, and then still for its answer: the server's
// write time-out runs from the request's beginning. Who has no token gets neither.
func TestUploadHasTime(t *testing.T) {
	w := newWorld(t, nil)
	for _, token := range []string{"", w.token} {
		r := httptest.NewRequest("POST", v1.PathUpload, strings.NewReader("{}"))
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		d := &deadlines{ResponseRecorder: httptest.NewRecorder()}
		began := time.Now()
		w.mux.ServeHTTP(d, r)
		if good := token != ""; good != (d.read.Sub(began) >= 5*time.Minute) || good != d.write.After(d.read) {
			t.Errorf("token %q: read until %v, write until %v", token, d.read.Sub(began), d.write.Sub(began))
		}
	}
}

// docs/security.md, the publisher of an image: v1's chunk MAC signs what he chose,
// a request included. This is the protocol's; the test is there so that the page
// stays true, and shows what is left: the nonce is used up like any other.
func TestChunkMACSignsRequests(t *testing.T) {
	w := newWorld(t, nil)
	text := v1.PathManifest + "77" + w.unix()
	w.publish("1", []byte(strings.Repeat("\xE9", 256)+text), 256)
	ask := v1.PathChunk + "?chunk_number=1"
	var chunk struct{ MAC string }
	rec := w.do("GET", ask, "", signed("dev-1", testKey, ask, "1", w.unix())...)
	if err := json.Unmarshal(rec.Body.Bytes(), &chunk); err != nil {
		t.Fatal(err)
	}
	forged := []string{"Device-ID", "dev-1", "X-Nonce", "77", "X-Timestamp", w.unix(), "X-MAC", chunk.MAC}
	w.want(w.do("GET", v1.PathManifest, "", forged...), 200, `"version":"1"`)
	w.want(w.do("GET", v1.PathManifest, "", forged...), 401, "replay")
}
