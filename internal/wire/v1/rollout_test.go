package v1_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/rollout"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// Devices on v1 are moved by rollouts as others are: phases, places, pauses, counts.
func TestRolloutOverV1(t *testing.T) {
	w := newWorld(t, func(c *v1.Config) { c.Rollouts = c.Devices.(v1.Rollouts) })
	engine := &rollout.Engine{Store: w.store, Log: slog.New(slog.DiscardHandler), Now: w.now}
	tick := func() {
		t.Helper()
		if err := engine.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	w.add("dev-2", testKey)
	n := 0
	gets := func(id, version string) {
		t.Helper()
		n++
		body := w.do("GET", v1.PathManifest, "", signed(id, testKey, v1.PathManifest, fmt.Sprint(n), w.unix())...).Body.String()
		if version == "" && body != "{}" || version != "" && !strings.Contains(body, `"version":"`+version+`"`) {
			t.Errorf("%s gets %s, not %q", id, body, version)
		}
	}
	w.publish("1.0", testImage(2048), 1024)
	gets("dev-1", "1.0") // of no rollout
	gets("dev-2", "1.0")
	if err := w.wire.Flush(t.Context()); err != nil { // from then on it is live
		t.Fatal(err)
	}
	r := w.publish("2.0", testImage(3072), 1024)
	list, err := fleet.ParsePhases("1,100%", fleet.Phase{Success: 0.8, Fail: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	c := fleet.Course{Phases: list}
	c.Fill()
	o, err := w.store.CreateRollout(t.Context(), fleet.Rollout{Product: fleet.DefaultProduct, ReleaseID: r.ID, Course: c}, w.now())
	if err != nil {
		t.Fatal(err)
	}
	gets("dev-1", "") // it has not begun
	tick()
	gets("dev-1", "2.0")
	gets("dev-1", "2.0")
	gets("dev-2", "")
	if p, err := w.store.Deployment(t.Context(), "dev-1"); err != nil || p.State != fleet.StateOffered || p.Rollout != o.ID || !p.Proven || p.Assurance != fleet.AssuranceOwn {
		t.Errorf("%+v %v", p, err)
	}
	report := func(id, status string) {
		t.Helper()
		n++
		body := `{"fota_status":` + status + `}`
		w.want(w.do("POST", v1.PathStatus, body, signed(id, testKey, v1.PathStatus, fmt.Sprint(n), w.unix())...), 200, "success")
	}
	report("dev-1", `{"boot_status":"pending_reboot"}`)
	report("dev-1", `{"boot_status":"success","new_version":"2.0"}`)
	gets("dev-1", "")
	tick()
	tick()
	if now, err := w.store.Rollout(t.Context(), o.ID); err != nil || now.Phase != 1 || now.State != fleet.RolloutRunning {
		t.Errorf("%+v %v", now, err)
	}
	if _, err := engine.Say(t.Context(), o.ID, fleet.CommandPause, ""); err != nil {
		t.Fatal(err)
	}
	gets("dev-2", "")
	if _, err := engine.Say(t.Context(), o.ID, fleet.CommandResume, ""); err != nil {
		t.Fatal(err)
	}
	gets("dev-2", "2.0")
	report("dev-2", `{"boot_status":"failed","error":"it crashed"}`)
	gets("dev-2", "")
	counts, _, err := engine.Counts(t.Context(), o)
	if err != nil || counts[0].Confirmed != 1 || counts[1].Failed != 1 || counts[1].OwnBad != 1 {
		t.Errorf("%+v %v", counts, err)
	}
	why, err := (&rollout.Asker{Store: w.store, V1: w.store, Now: w.now}).Why(t.Context(), "dev-2")
	if err != nil || why.Verdict != fleet.VerdictFoundBad || !strings.Contains(why.Why, "it crashed") {
		t.Errorf("%+v %v", why, err)
	}
	// An older release by a newer rollout: no device goes from one version to the other and back.
	old, err := w.store.ReleaseByVersion(t.Context(), fleet.DefaultProduct, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.CreateRollout(t.Context(), fleet.Rollout{Product: fleet.DefaultProduct, ReleaseID: old.ID, Course: c}, w.now()); err != nil {
		t.Fatal(err)
	}
	tick()
	gets("dev-1", "")
}

// A download is many requests: a pause holds for each, and goes on where it was, also over a
// restart of the server; what was taken back stays away.
func TestPauseHoldsForChunks(t *testing.T) {
	change := func(c *v1.Config) { c.Rollouts = c.Devices.(v1.Rollouts) }
	w := newWorld(t, change)
	engine := &rollout.Engine{Store: w.store, Log: slog.New(slog.DiscardHandler), Now: w.now}
	n := 0
	get := func(target string) (status int, body string) {
		t.Helper()
		n++
		rec := w.do("GET", target, "", signed("dev-1", testKey, target, fmt.Sprint(n), w.unix())...)
		return rec.Code, rec.Body.String()
	}
	chunk := func(want int) {
		t.Helper()
		if status, body := get(v1.PathChunk + "?chunk_number=1"); status != want || want == 404 && !strings.Contains(body, "Chunk not found") {
			t.Errorf("%d %s, not %d", status, body, want)
		}
	}
	say := func(id int64, c fleet.Command) {
		t.Helper()
		if _, err := engine.Say(t.Context(), id, c, ""); err != nil {
			t.Fatal(err)
		}
	}
	r := w.publish("2.0", testImage(3072), 1024)
	list, err := fleet.ParsePhases("100%", fleet.Phase{Success: 0.8, Fail: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	c := fleet.Course{Phases: list}
	c.Fill()
	begin := func() int64 {
		t.Helper()
		o, err := w.store.CreateRollout(t.Context(), fleet.Rollout{Product: fleet.DefaultProduct, ReleaseID: r.ID, Course: c}, w.now())
		if err == nil {
			err = engine.Tick(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return o.ID
	}
	id := begin()
	if _, body := get(v1.PathManifest); !strings.Contains(body, `"version":"2.0"`) {
		t.Fatal(body)
	}
	chunk(200)
	say(id, fleet.CommandPause)
	chunk(404)
	say(id, fleet.CommandResume)
	chunk(200)
	n++
	w.want(w.do("POST", v1.PathStatus, `{"fota_status":{"chunk_received":1,"total_chunks":3}}`, signed("dev-1", testKey, v1.PathStatus, fmt.Sprint(n), w.unix())...), 200, "success")
	say(id, fleet.CommandPause)
	w.close()
	w.open(change)
	engine.Store = w.store
	chunk(404)
	say(id, fleet.CommandResume)
	chunk(200)
	say(id, fleet.CommandCancel)
	chunk(404)
	// Given out anew it goes on: as on the native wire the newest rollout of the release decides.
	begin()
	chunk(200)
	if _, body := get(v1.PathManifest); !strings.Contains(body, `"version":"2.0"`) {
		t.Fatal(body)
	}
	chunk(200)
}
